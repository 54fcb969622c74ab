"""SIGKILL of every part at every point where it could hurt, and zombies."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cells import Cell
from installation import processes_of, wait_for
from invariants import assert_invariants
from plant import Plant, cut_off, running, starting

from worker.tables import JobState

pytestmark = pytest.mark.timeout(240)

COLOURING = ("before_claim", "claimed", "reading", "inference", "half_written", "synchronised", "intended",
             "published", "recording", "finished")  # fmt: skip
QUICK = {"inference", "published"}
WATCHING = ("hashed", "submitted", "marked", "sent")
#: at `half_written` a part of a scan so high is in the file, and parts are to come
HIGH_PX = 300


@pytest.mark.parametrize(
    "point", [point if point in QUICK else pytest.param(point, marks=pytest.mark.slow) for point in COLOURING]
)
def test_colouring_process_killed(plant: Plant, cell: Cell, point: str) -> None:
    folder = f"child-{point}"
    plant.arm(point, "kill 0.05" if point == "inference" else "kill")
    originals = plant.drop(folder, 2, size_px=HIGH_PX)
    ended = plant.hit(point)
    cell.recovered(f"SIGKILL of the colouring process: {point}", plant.settle(folder, 2) - ended)
    assert_invariants(plant, originals, folder)


@pytest.mark.parametrize(
    "point", [point if point == "intended" else pytest.param(point, marks=pytest.mark.slow) for point in COLOURING]
)
def test_worker_killed(plant: Plant, cell: Cell, point: str) -> None:
    folder = f"worker-{point}"
    plant.arm(point, "stop")
    originals = plant.drop(folder, 2, size_px=HIGH_PX)
    plant.hit(point)
    ended = time.time()
    cut_off(plant.part("worker"))
    cell.recovered(f"SIGKILL of the worker while its colouring process is at: {point}", plant.settle(folder, 2) - ended)
    assert_invariants(plant, originals, folder)


@pytest.mark.parametrize("point", [point if point == "marked" else pytest.param(point, marks=pytest.mark.slow)
                                   for point in WATCHING])  # fmt: skip
def test_watcher_killed(plant: Plant, cell: Cell, point: str) -> None:
    folder = f"watch-{point}"
    plant.arm(point, "kill")
    originals = plant.drop(folder, 3)
    ended = plant.hit(point)
    cell.recovered(f"SIGKILL of the watcher: {point}", plant.settle(folder, 3) - ended)
    assert_invariants(plant, originals, folder)


@pytest.mark.slow
def test_watcher_killed_while_it_takes_a_claim_back(plant: Plant, cell: Cell) -> None:
    """The reaper dies between its decision and its commit: the claim is taken back once, and counted once."""
    plant.arm("claimed", "stop")
    plant.arm("taken_back", "kill")
    originals = plant.drop("reaper", 2)
    plant.hit("claimed")
    (child,) = plant.coloring()
    ended = plant.hit("taken_back", 90)
    wait_for(lambda: [job.lost for job in plant.jobs("reaper") if job.claim_no] == [1] and all(
        job.state is JobState.QUEUED for job in plant.jobs("reaper")), 60, "the claim is taken back")  # fmt: skip
    os.kill(child, signal.SIGCONT)
    cell.recovered("SIGKILL of the watcher: taken_back", plant.settle("reaper", 2) - ended)
    assert_invariants(plant, originals, "reaper")
    assert sorted(job.claim_no for job in plant.jobs("reaper")) == [1, 2]


@pytest.mark.slow
def test_beat_killed(plant: Plant, cell: Cell) -> None:
    before = plant.part("beat")
    ended = time.time()
    cut_off(before)
    originals = plant.drop("beat", 1)
    wait_for(lambda: plant._part("beat") not in (0, before), 30, "beat runs again")
    cell.recovered("SIGKILL of beat", plant.settle("beat", 1) - ended)
    assert_invariants(plant, originals, "beat")


@pytest.mark.slow
def test_beat_killed_as_it_sends(tmp_path: Path, cell: Cell) -> None:
    """The message that it was about to send is sent by the next one."""
    with running(tmp_path, PHOTOCHROM_RETRAIN_CRON="* * * * *") as plant:
        log = plant.installation.state_dir / "logs" / "trainer.log"

        def asked() -> int:
            return log.read_text().count("Task photochrom.retrain[") if log.exists() else 0

        wait_for(asked, 60, "the trainer is asked for the first time")
        plant.arm("scheduled", "kill")
        cut_off(plant.part("beat"))  # the one that starts now has something to send at once
        ended, seen = plant.hit("scheduled"), asked()
        originals = plant.drop("beat", 2)
        wait_for(lambda: asked() > seen, 50, "the trainer is asked again")
        asked_again = time.time()
        cell.recovered("SIGKILL of beat as it sends a task", max(plant.settle("beat", 2), asked_again) - ended)
        assert_invariants(plant, originals, "beat")


@pytest.mark.slow
@pytest.mark.parametrize("point", [*COLOURING, *WATCHING])
def test_supervisor_killed(tmp_path: Path, cell: Cell, point: str) -> None:
    """What it started ends with it; the next start goes on where it was."""
    who = "the watcher" if point in WATCHING else "a job"
    with starting(tmp_path) as plant:
        plant.arm(point, "stop")
        originals = plant.drop("mid", 3, size_px=HIGH_PX)
        plant.hit(point)
        stopped = plant.part("watch") if point in WATCHING else plant.child()
        cut_off(plant.up)
        os.kill(stopped, signal.SIGCONT)  # what it has in hand may be finished
        wait_for(lambda: not processes_of(plant.installation.state_dir), 30, "nothing is left behind")
    ended = time.time()
    with running(tmp_path) as plant:
        cell.recovered(f"SIGKILL of the supervisor while {who} is at: {point}", plant.settle("mid", 3) - ended)
        assert_invariants(plant, originals, "mid")


@pytest.mark.slow
def test_supervisor_killed_while_a_job_hangs(tmp_path: Path, cell: Cell) -> None:
    """Its worker, asked to end by nobody who would insist, does not wait for the job for ever."""
    with starting(tmp_path) as plant:
        plant.arm("inference", "stop")
        originals = plant.drop("hangs", 3)
        plant.hit("inference")
        cut_off(plant.up)
        wait_for(lambda: not processes_of(plant.installation.state_dir), 30, "nothing is left behind")
    ended = time.time()
    with running(tmp_path) as plant:
        cell.recovered("SIGKILL of the supervisor while a job hangs", plant.settle("hangs", 3) - ended)
        assert_invariants(plant, originals, "hangs")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["claimed", "half_written", "intended", "published"])
def test_zombie_does_not_publish_or_finish(plant: Plant, cell: Cell, point: str) -> None:
    """Stopped for two leases while a second worker does its job; then it goes on."""
    folder = f"zombie-{point}"
    environ = plant.installation.environ | {"PHOTOCHROM_WORKER": f"second-{point}"}
    command = plant.installation.command("worker")
    plant.arm(point, "stop")
    originals = plant.drop(folder, 1, size_px=HIGH_PX)
    plant.hit(point)
    zombie, stopped_s = plant.coloring()[0], time.monotonic()
    second = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        recovered = plant.settle(folder, 1, timeout_s=90)
        time.sleep(max(0.0, 42 - (time.monotonic() - stopped_s)))
        row = plant.jobs(folder)[0]
        told = plant.told("worker", "job_moved", job_id=row.id)
        os.kill(zombie, signal.SIGCONT)
        wait_for(lambda: plant.told("worker", "job_moved", job_id=row.id) > told, 30, "the zombie sees that it is void")
        after = plant.jobs(folder)[0]
        assert (after.claim_no, after.output_sha256, after.worker) == (row.claim_no, row.output_sha256, row.worker)
        assert (row.worker or "").startswith(f"second-{point}")
        assert row.state is JobState.DONE
        assert_invariants(plant, originals, folder)
    finally:
        second.terminate()
        second.wait(20)
    lease_s = 20.0
    stopped = time.time() - (time.monotonic() - stopped_s)
    cell.recovered(
        f"SIGSTOP at {point} for 42 s, then SIGCONT", recovered - stopped - lease_s, "counted from the lease's end"
    )
