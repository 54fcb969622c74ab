"""Full, read-only, forbidden and missing disks: nothing is lost, no strike is counted, and it goes on by itself."""

import os
import shutil
import time
from collections.abc import Iterator

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from mounts import fill, mount, own_mounts, tmpfs, unmount, without_privileges
from plant import Plant, cut_off, png, running, scan

from daemon.childlog import ROTATE_BYTES
from worker.tables import FileState, JobState, Root, RootState, SourceFile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant whose inbox, output and state directory are small file systems of their own."""
    own_mounts()
    base = tmp_path_factory.mktemp("disks")
    store = base / "store"
    with tmpfs(store, "40m", "share"), tmpfs(base / "output", "24m"), tmpfs(base / "state", "48m"):
        (base / "inbox").mkdir()
        mount("--bind", store, base / "inbox")
        try:
            with running(base, without_privileges(), PHOTOCHROM_MIN_FREE_MIB="4") as plant:
                yield plant
        finally:
            unmount(base / "inbox")


def no_strikes(plant: Plant, folder: str) -> None:
    assert {job.failures + job.lost for job in plant.jobs(folder)} == {0}, "a strike was counted"


def root_of(plant: Plant) -> Root:
    with plant.database.reading() as session:
        return session.query(Root).filter_by(name=str(plant.inbox)).one()


def waits(plant: Plant, folder: str) -> None:
    """Until a job of the folder waits because of what the test did."""

    def one_waits() -> bool:
        return any(job.claim_no and job.state is JobState.QUEUED and job.not_before for job in plant.jobs(folder))

    wait_for(one_waits, 60, "a job waits")


def test_output_full(disks: Plant, cell: Cell) -> None:
    filler = fill(disks.output)
    originals = disks.drop("full", 3)
    disks.wait_jobs("full", 3)
    wait_for(lambda: root_of(disks).reason.startswith("Paused"), 20, "the root is paused")
    time.sleep(12)
    assert {(job.state, job.claim_no) for job in disks.jobs("full")} == {(JobState.QUEUED, 0)}, "an attempt was spent"
    assert "Paused" in disks.installation.json("why", str(disks.inbox / "full" / "0.png"))["sentence"]
    filler.unlink()
    began = time.time()
    cell.recovered("output disk full: the root pauses", disks.settle("full", 3) - began)
    no_strikes(disks, "full")
    assert_invariants(disks, originals, "full")


def test_output_full_at_the_last_moment(disks: Plant, cell: Cell) -> None:
    disks.arm("synchronised", "raise ENOSPC")
    originals = disks.drop("last", 1)
    began = disks.hit("synchronised")
    cell.recovered("ENOSPC when the temporary file is synchronised", disks.settle("last", 1) - began)
    no_strikes(disks, "last")
    assert_invariants(disks, originals, "last")


def test_output_fills_up_under_a_job(disks: Plant, cell: Cell) -> None:
    """The job has begun when the last free block is taken: its own write fails, for real."""
    disks.arm("inference", "stop")
    originals = disks.drop("under", 2, size_px=400)
    disks.hit("inference")
    (child,) = disks.coloring()
    filler = fill(disks.output)
    os.kill(child, 18)  # SIGCONT
    waits(disks, "under")
    filler.unlink()
    began = time.time()
    cell.recovered("ENOSPC while a derivative is written to a full disk", disks.settle("under", 2) - began)
    no_strikes(disks, "under")
    assert_invariants(disks, originals, "under")


def test_quota(disks: Plant, cell: Cell) -> None:
    disks.arm("half_written", "raise EDQUOT")
    originals = disks.drop("quota", 1)
    began = disks.hit("half_written")
    cell.recovered("EDQUOT in the middle of writing", disks.settle("quota", 1) - began)
    no_strikes(disks, "quota")
    assert_invariants(disks, originals, "quota")


def test_output_read_only(disks: Plant, cell: Cell) -> None:
    mount("-o", "remount,ro", disks.output)
    originals = disks.drop("erofs", 2)
    waits(disks, "erofs")
    mount("-o", "remount,rw", disks.output)
    began = time.time()
    cell.recovered("EROFS on the output", disks.settle("erofs", 2) - began)
    no_strikes(disks, "erofs")
    assert_invariants(disks, originals, "erofs")


def test_output_forbidden(disks: Plant, cell: Cell) -> None:
    disks.output.chmod(0o500)
    originals = disks.drop("eacces", 2)
    waits(disks, "eacces")
    disks.output.chmod(0o700)
    began = time.time()
    cell.recovered("EACCES on the output, then granted", disks.settle("eacces", 2) - began)
    no_strikes(disks, "eacces")
    assert_invariants(disks, originals, "eacces")


def test_scan_forbidden(disks: Plant, cell: Cell) -> None:
    """Blocked, visible with its errno, and taken once it may be read."""
    made = disks.installation.base / "forbidden"
    made.mkdir()
    shutil.copy(next(disks.inbox.rglob("*.png")), made / "0.png")
    (made / "0.png").write_bytes((made / "0.png").read_bytes() + b"\0")
    (made / "0.png").chmod(0)
    shutil.copytree(made, disks.inbox / "forbidden")
    path = disks.inbox / "forbidden" / "0.png"

    def state() -> SourceFile | None:
        with disks.database.reading() as session:
            return session.query(SourceFile).filter_by(path=b"forbidden/0.png").one_or_none()

    wait_for(
        lambda: (row := state()) and row.state is FileState.BLOCKED and "EACCES" in row.reason, 30, "it is blocked"
    )
    path.chmod(0o400)
    began, originals = time.time(), manifest(path.parent)
    ended = disks.settle("forbidden", 1)
    assert_invariants(disks, originals, "forbidden")
    cell.recovered("EACCES on a scan, then granted", ended - began)


def test_folder_forbidden(disks: Plant, cell: Cell) -> None:
    """It cannot be listed nor watched; nothing else goes deaf by that, and it is taken once it may be read."""
    made = disks.inbox / ".locked"
    made.mkdir()
    (made / "0.png").write_bytes(png(scan(720)))
    made.chmod(0)
    after_a_look(disks)
    made.rename(disks.inbox / "locked")
    beside = disks.drop("beside", 1)
    disks.settle("beside", 1)

    def told() -> list[str]:
        return [it["reason"] for it in disks.installation.json("status")["unreadable"]["first"]
                if it["path"] == str(disks.inbox / "locked")]  # fmt: skip

    (reason,) = wait_for(told, 30, "status counts it")
    assert "cannot be listed (EACCES" in reason and disks.jobs("locked") == []
    (disks.inbox / "locked").chmod(0o700)
    began, originals = time.time(), manifest(disks.inbox / "locked")
    cell.recovered("EACCES on a folder, then granted", disks.settle("locked", 1) - began)
    assert told() == []
    assert_invariants(disks, originals, "locked")
    assert_invariants(disks, beside, "beside")


def test_state_directory_full(disks: Plant, cell: Cell) -> None:
    """Database, broker and logs cannot write; at first there is no room to rotate a log."""
    state = disks.installation.state_dir
    log = state / "logs" / "worker.log"
    with log.open("ab", buffering=0) as file:
        file.write(b"\n" * (ROTATE_BYTES - log.stat().st_size - (1 << 16)))
        filler = fill(state)
        os.truncate(filler, filler.stat().st_size - (1 << 18))
        file.write(b"\n" * (1 << 17))
    wait_for(lambda: log.stat().st_size < ROTATE_BYTES // 2, 20, "the log is rotated")
    assert not log.with_name("worker.log.1").exists(), "half a copy is left"
    filler = fill(state)
    originals = disks.drop("state", 3)
    time.sleep(20)
    filler.unlink()
    began = time.time()
    fault = "ENOSPC on database, broker file and logs, one of them to be rotated, for 20 s"
    cell.recovered(fault, disks.settle("state", 3) - began)
    assert_invariants(disks, originals, "state")


def test_root_unmounted_and_remounted(disks: Plant, cell: Cell) -> None:
    """The empty folder beneath the share proves nothing: no file vanishes, queued work waits."""
    disks.arm("before_claim", "stop")
    originals = disks.drop("away", 4)
    disks.hit("before_claim")
    (child,) = disks.coloring()
    disks.wait_jobs("away", 4)
    unmount(disks.inbox)
    os.kill(child, 18)  # SIGCONT

    wait_for(lambda: root_of(disks).state is RootState.OFFLINE, 15, "the root is offline")
    time.sleep(8)
    with disks.database.reading() as session:
        files = [row.state for row in session.query(SourceFile) if row.path.startswith(b"away/")]
    assert files == [FileState.SUBMITTED] * 4, "something was concluded from the empty folder"
    mount("--bind", disks.installation.base / "store", disks.inbox)
    began = time.time()
    wait_for(lambda: root_of(disks).state is RootState.ONLINE, 15, "the root is online")
    cell.recovered("root unmounted with work queued, then remounted", disks.settle("away", 4) - began)
    no_strikes(disks, "away")
    assert_invariants(disks, originals, "away")


def test_root_replaced(disks: Plant, cell: Cell) -> None:
    """Another share in its place, and then the right one again."""
    before = manifest(disks.output)
    unmount(disks.inbox)
    other = disks.installation.base / "other"
    with tmpfs(other, "4m", "another-share"):
        (other / "stranger.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        mount("--bind", other, disks.inbox)
        time.sleep(12)
        with disks.database.reading() as session:
            assert root_of(disks).state is RootState.OFFLINE
            assert session.query(SourceFile).filter_by(path=b"stranger.png").one_or_none() is None
        unmount(disks.inbox)
        mount("--bind", disks.installation.base / "store", disks.inbox)
    began = time.time()
    originals = disks.drop("again", 1)
    ended = disks.settle("again", 1)
    assert {path: entry for path, entry in manifest(disks.output).items() if path in before} == before
    assert_invariants(disks, originals, "again")
    cell.recovered("root replaced by another share, and back", ended - began)


def test_share_below_a_root(disks: Plant, cell: Cell) -> None:
    """A second file system appears in a folder of the root, goes with work queued, and comes back: no event tells.

    Each time just after a regular look at the root, so that the next one is a minute away.
    """
    point, share = disks.inbox / "below", disks.installation.base / "second"
    point.mkdir()
    with tmpfs(share, "8m", "second-share"):
        made = share / ".queued"
        made.mkdir()
        (share / "first").mkdir()
        for number in range(2):
            (share / "first" / f"{number}.png").write_bytes(png(scan(700 + number)))
        after_a_look(disks)
        mount("--bind", share, point)
        began = time.time()
        appeared_s = disks.settle("below/first", 2) - began
        coloured = manifest(disks.output / "below")

        disks.arm("before_claim", "stop")
        for number in range(3):
            (made / f"{number}.png").write_bytes(png(scan(710 + number)))
        made.rename(share / "queued")
        disks.hit("before_claim")
        (child,) = disks.coloring()
        disks.wait_jobs("below/queued", 3)
        originals = manifest(point)
        after_a_look(disks)
        unmount(point)
        cut_off(disks.part("watch"))  # what was mounted is in the record, not in its memory
        os.kill(child, 18)  # SIGCONT
        after_a_look(disks)
        assert manifest(disks.output / "below") == coloured, "derivatives stay when their masters' share goes"
        assert [job.state for job in disks.jobs("below/first")] == [JobState.DONE] * 2
        assert {job.state for job in disks.jobs("below/queued")} == {JobState.QUEUED}, "a job did not wait"
        assert states_below(disks) == [FileState.SUBMITTED] * 5, "something was concluded from the empty folder"
        said = disks.installation.json("why", str(point / "first" / "0.png"))
        assert said["state"] == JobState.DONE
        assert said["sentence"].endswith(f" The scan lies on {point}, which is not mounted now.")

        mount("--bind", share, point)
        began = time.time()
        wait_for(lambda: {job.state for job in disks.jobs("below")} == {JobState.DONE}, 150, "all is done")
        recovered_s = time.time() - began
        no_strikes(disks, "below")
        assert {job.claim_no for job in disks.jobs("below/first")} == {1}, "something was done twice"
        assert_invariants(disks, originals, "below")
        unmount(point)
    note = f"(the first time: {appeared_s:.1f} s from mounted to coloured)"
    cell.recovered("a share below the root is mounted, unmounted with work queued, mounted again", recovered_s, note)


def after_a_look(plant: Plant) -> None:
    """Until a complete look at the root has just ended that began after this was called."""
    before = time.time()
    wait_for(lambda: (row := root_of(plant)).scan_started_at is not None and row.scan_started_at.timestamp() > before,
             90, "the root was looked at")  # fmt: skip


def states_below(plant: Plant) -> list[FileState]:
    with plant.database.reading() as session:
        return [row.state for row in session.query(SourceFile) if row.path.startswith(b"below/")]
