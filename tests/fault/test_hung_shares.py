"""Two watched folders, of which one is on a share that does not answer: the other is worked off, and it too afterwards.

Nothing fails on such a share: every question to it, a stat even, waits until its server is back.
"""

import shutil
import time
from pathlib import Path

import pytest
from cells import RECOVERY_S, Cell
from hung_share import hung
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from mounts import own_mounts
from plant import Plant
from test_absent_roots import Second, both_of, kill_the_watcher, running_both, second_is

from worker.errors import ExitCode
from worker.tables import JobState, Root, RootState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SILENT = "The folder does not answer (for"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Where both folders are, in mounts of our own."""
    own_mounts()
    (tmp_path / "second").mkdir()
    return tmp_path


def others_are_worked_off(plant: Plant, folder: str) -> None:
    began = time.time()
    originals = plant.drop(folder, 2)
    assert plant.settle(folder, 2) - began < RECOVERY_S
    assert_invariants(plant, originals, folder)


def assert_told(plant: Plant, second: Second, words: str) -> None:
    """Every verb ends, and says what is the matter."""
    asked = plant.installation
    asked.extra["PHOTOCHROM_ROOTS"] = both_of(asked.base)
    health = asked.run("health", timeout_s=60)
    assert health.returncode == ExitCode.UNHEALTHY
    assert words in "".join(line for line in health.stdout.splitlines() if line.startswith("BAD")), health.stdout
    assert words in asked.run("status", timeout_s=60).stdout
    told = asked.json("why", str(second.inbox / "before" / "0.png"))
    assert told["state"] == "offline" and words in told["sentence"]


def test_a_share_hangs_with_work_queued(base: Path, cell: Cell) -> None:
    with running_both(base) as (plant, second):
        before = second.drop("before", 2)
        second.settle("before", 2)
        plant.arm("before_claim", "stop")
        queued = second.drop("queued", 3)
        plant.hit("before_claim")
        second.wait_jobs("queued", 3)
        with hung(second.inbox):
            began = time.time()
            wait_for(lambda: second_is(plant, RootState.OFFLINE, SILENT), 40, "the root is offline")
            offline_s = time.time() - began
            plant.calm()
            others_are_worked_off(plant, "beside")
            assert_told(plant, second, SILENT)
            assert {job.state for job in second.jobs("queued")} == {JobState.QUEUED}
            others_are_worked_off(plant, "more")
        began = time.time()
        after = second.drop("after", 2)
        ended = max(second.settle("after", 2), second.settle("queued", 3))
        assert second_is(plant, RootState.ONLINE)
        for name, originals in {"before": before, "queued": queued, "after": after}.items():
            assert_invariants(second, originals, name)
    note = f"(offline after {offline_s:.0f} s; the other root's scans were done meanwhile)"
    cell.recovered("one of two shares stops answering, with work queued", ended - began, note)


@pytest.mark.parametrize(("point", "what"), [("claimed", "scans"), ("reading", "output")])
def test_a_share_hangs_under_a_job(base: Path, cell: Cell, point: str, what: str) -> None:
    """The only colouring process waits there: it gives the job back and ends, and a new one does the other root's."""
    with running_both(base) as (plant, second):
        plant.arm(point, "stop")
        originals = second.drop("held", 1)
        plant.hit(point)
        (child,) = plant.coloring()
        with hung(second.inbox if what == "scans" else second.output):
            plant.calm()
            others_are_worked_off(plant, "beside")
            assert plant.coloring() != [child]
            (job,) = second.jobs("held")
            assert (job.state, job.failures, job.lost) == (JobState.QUEUED, 0, 0), job.reason
            assert "does not answer" in job.reason
        began = time.time()
        ended = second.settle("held", 1)
        assert {job.failures + job.lost for job in second.jobs()} == {0}, "a strike was counted"
        assert_invariants(second, originals, "held")
    cell.recovered(f"one of two shares stops answering under a job ({what})", ended - began)


@pytest.mark.parametrize(("point", "what"), [("claimed", "scans"), ("reading", "output")])
def test_a_share_below_a_root_hangs_under_a_job(base: Path, cell: Cell, point: str, what: str) -> None:
    """The root and the output answer all the while, and yet the only colouring process waits."""
    with running_both(base) as (plant, second):
        folder = second.output / "nas"
        folder.mkdir(parents=True)
        plant.arm(point, "stop")
        originals = second.drop("nas", 1)
        plant.hit(point)
        (child,) = plant.coloring()
        with hung(second.inbox / "nas" if what == "scans" else folder):
            plant.calm()
            wait_for(lambda: plant.coloring() not in ([], [child]), 60, "another process colours")
            others_are_worked_off(plant, "beside")
            (job,) = second.jobs("nas")
            assert (job.failures, job.lost) == (0, int(job.state is JobState.RUNNING)), job.reason
        began = time.time()
        ended = second.settle("nas", 1)
        assert {job.failures + job.lost for job in second.jobs()} == {0}, "a strike was counted"
        assert_invariants(second, originals, "nas")
    cell.recovered(f"a share mounted below one of two roots stops answering under a job ({what})", ended - began)


def test_a_share_hangs_when_everything_starts_and_ends(base: Path, cell: Cell) -> None:
    with hung(base / "second"), running_both(base) as (plant, second):
        wait_for(lambda: second_is(plant, RootState.OFFLINE, SILENT), 60, "the root is offline")
        others_are_worked_off(plant, "beside")
        kill_the_watcher(plant)
        others_are_worked_off(plant, "more")
        assert_told(plant, second, SILENT)
    cell.held("one of two shares does not answer from the start to the end", "(all processes ended after SIGTERM)")


def test_an_output_hangs(base: Path, cell: Cell) -> None:
    with running_both(base) as (plant, second):
        first = second.drop("first", 1)
        second.settle("first", 1)
        with hung(second.output):

            def is_paused() -> bool:
                with plant.database.reading() as session:
                    return f"Paused: {second.output} does not answer" in session.get_one(Root, "second").reason

            wait_for(is_paused, 40, "the root is paused")
            queued = second.drop("queued", 2)
            second.wait_jobs("queued", 2)
            others_are_worked_off(plant, "beside")
            assert {job.state for job in second.jobs("queued")} == {JobState.QUEUED}
            health = plant.installation.run("health", timeout_s=60)
            assert health.returncode == ExitCode.UNHEALTHY
        began = time.time()
        ended = second.settle("queued", 2)
        assert {job.failures + job.lost for job in second.jobs()} == {0}, "a strike was counted"
        assert_invariants(second, first, "first")
        assert_invariants(second, queued, "queued")
    cell.recovered("one of two outputs stops answering, and answers again", ended - began)


def test_the_output_with_the_derivative_to_copy_hangs(base: Path, cell: Cell) -> None:
    """The same bytes are coloured once more, instead of waiting with the share that has them in colour."""
    with running_both(base) as (plant, second):
        first = second.drop("first", 1)
        second.settle("first", 1)
        with hung(second.output):
            began = time.time()
            (plant.inbox / ".copy").mkdir()
            shutil.copyfile(second.inbox / "first" / "0.png", plant.inbox / ".copy" / "0.png")
            (plant.inbox / ".copy").rename(plant.inbox / "copy")
            originals = manifest(plant.inbox / "copy")
            ended = plant.settle("copy", 1)
            (job,) = plant.jobs("copy")
            assert (job.state, job.failures, job.lost) == (JobState.DONE, 0, 0)
            assert_invariants(plant, originals, "copy")
        assert_invariants(second, first, "first")
    cell.recovered("the output with a derivative of the same bytes stops answering", ended - began)
