"""Scans that kill, hang or starve what works on them: they end their own attempts, and nothing else."""

import time
from pathlib import Path

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from plant import Plant, png, running, scan

from worker.jobs import PUBLISHED
from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_a_scan_that_kills_its_process_every_time(plant: Plant, cell: Cell) -> None:
    """Five lost workers, then quarantined with the signal as evidence; the next scans go on; repaired, it is taken."""
    originals = plant.drop("poison", 1)
    for _ in range(5):
        plant.arm("inference", "kill")
        plant.hit("inference", 90)
    bystanders = plant.drop("bystanders", 2)
    began = time.time()
    plant.settle("bystanders", 2)
    plant.settle("poison", 1)
    (job,) = plant.jobs("poison")
    assert (job.state, job.lost, job.claim_no, job.error_class) == (JobState.QUARANTINED, 5, 5, "worker_lost")
    shown = plant.installation.json("quarantine", "show", str(job.id))
    assert shown["last_end"] == "signal 9 (SIGKILL)"
    assert_invariants(plant, originals, "poison", states=PUBLISHED | {JobState.QUARANTINED})
    assert_invariants(plant, bystanders, "bystanders")

    new = plant.inbox / "poison" / ".new"
    new.write_bytes(png(scan(4242)))
    new.rename(plant.inbox / "poison" / "0.png")
    originals = manifest(plant.inbox / "poison")
    wait_for(lambda: [job.state for job in plant.jobs("poison")] == [JobState.DONE], 60, "the repaired file is taken")
    assert_invariants(plant, originals, "poison")
    cell.recovered("a scan that kills its process five times: quarantined; repaired: taken", time.time() - began)


def test_a_scan_that_never_ends(tmp_path: Path, cell: Cell) -> None:
    """The process is ended at `job_limit_s`, its job is done again."""
    with running(tmp_path, PHOTOCHROM_JOB_LIMIT_S="8") as plant:
        plant.arm("inference", "stop")
        originals = plant.drop("hangs", 2)
        limit = plant.hit("inference") + 8
        ended = plant.settle("hangs", 2, 90)
        assert_invariants(plant, originals, "hangs")
        assert sorted(job.claim_no for job in plant.jobs("hangs")) == [1, 2]
        held = next(job.id for job in plant.jobs("hangs") if job.claim_no == 2)
        assert plant.installation.json("quarantine", "show", str(held))["last_end"] == "time limit of 8 s"
    cell.recovered("a job that hangs, ended after job_limit_s (8 s)", ended - limit)


def test_a_scan_that_never_ends_whoever_has_it(tmp_path: Path, cell: Cell) -> None:
    """Each process is ended at `job_limit_s`; the last strike tells why."""
    with running(tmp_path, PHOTOCHROM_JOB_LIMIT_S="8", PHOTOCHROM_MAX_LOST="2") as plant:
        originals = plant.drop("endless", 1)
        for _ in range(2):
            plant.arm("inference", "stop")
            limit = plant.hit("inference", 120) + 8
        ended = plant.settle("endless", 1, 120)
        (job,) = plant.jobs("endless")
        assert (job.state, job.lost, job.error_class) == (JobState.QUARANTINED, 2, "time_limit")
        shown = plant.installation.json("quarantine", "show", str(job.id))
        assert shown["last_end"] == "time limit of 8 s"
        assert "job_limit_s" in shown["reason"]
        assert_invariants(plant, originals, "endless", states={JobState.QUARANTINED})
    cell.recovered("a job that hangs in every process: quarantined, with the time limit as its end", ended - limit)


def test_a_scan_that_wants_more_memory_than_it_may(tmp_path: Path, cell: Cell) -> None:
    """25 megapixels under a limit that holds for small ones: quarantined or done, and the small ones are done."""
    with running(tmp_path, PHOTOCHROM_JOB_MEMORY_MIB="64", PHOTOCHROM_RETRY_S="1") as plant:
        (plant.inbox / "large").mkdir()
        (plant.inbox / "large" / "0.png").write_bytes(png(scan(77, 4330, 16)))
        large = manifest(plant.inbox / "large")
        small = plant.drop("small", 3)
        began = time.time()
        ended = plant.settle("small", 3, 120)
        plant.settle("large", 1, 200)
        (job,) = plant.jobs("large")
        assert (job.state, job.error_class) in {(JobState.DONE, None), (JobState.QUARANTINED, "memory_limit"),
                                                (JobState.QUARANTINED, "worker_lost")}, job.error_message  # fmt: skip
        states = PUBLISHED | {JobState.QUARANTINED}
        assert_invariants(plant, large, "large", states=states)
        assert_invariants(plant, small, "small")
    cell.recovered(
        "a scan of 25 megapixels with 64 MiB of memory beside small ones",
        ended - began,
        f"({job.state}: {job.reason[:80]})",
    )
