"""Whatever happens to the watched folder: every scan is taken once, whole, and absence proves nothing."""

import mmap
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from plant import Plant, png, running, scan

from worker.files import by_path
from worker.tables import FileState, Job, JobState, SourceFile

pytestmark = pytest.mark.timeout(300)
BIG = png(scan(1, 700))


def digest_is_whole(plant: Plant, folder: str, count: int, began: float, cell: Cell, fault: str) -> None:
    """All of a folder is taken; each job was made from the final bytes, and only from those."""
    originals = manifest(plant.inbox / folder)
    ended = plant.settle(folder, count)
    assert_invariants(plant, originals, folder)
    assert {job.claim_no for job in plant.jobs(folder)} == {1}, "a half-written file was worked on"
    cell.recovered(fault, ended - began)


def test_slow_writer(plant: Plant, cell: Cell) -> None:
    (plant.inbox / "slow").mkdir()
    with (plant.inbox / "slow" / "a.png").open("wb", buffering=0) as file:
        for part in range(12):
            file.write(BIG[part * len(BIG) // 12 : (part + 1) * len(BIG) // 12])
            time.sleep(0.5)
    digest_is_whole(plant, "slow", 1, time.time(), cell, "writer that takes 6 s")


@pytest.mark.slow
def test_writer_of_a_byte_a_second(plant: Plant, cell: Cell) -> None:
    """As slow as the settle time is long."""
    (plant.inbox / "byte").mkdir()
    with (plant.inbox / "byte" / "a.png").open("wb", buffering=0) as file:
        file.write(BIG[:-8])
        for at in range(len(BIG) - 8, len(BIG)):
            time.sleep(1)
            file.write(BIG[at : at + 1])
    digest_is_whole(plant, "byte", 1, time.time(), cell, "writer of a byte a second (the last eight)")


def test_writers_that_rename_at_the_end(plant: Plant, cell: Cell) -> None:
    """As rsync, SMB clients and browsers do it; the temporary name lies there for longer than the settle time."""
    folder = plant.inbox / "renamed"
    folder.mkdir()
    temporary = {".a.png.Xy12Zw": "a.png", "b.png.part": "b.png", "c.png.tmp": "c.png", "~$d.png": "d.png"}
    for number, name in enumerate(temporary):
        (folder / name).write_bytes(png(scan(600 + number))[:-400])
    time.sleep(3)
    assert plant.jobs("renamed") == []
    for number, (name, final) in enumerate(temporary.items()):
        (folder / name).write_bytes(png(scan(600 + number)))
        (folder / name).rename(folder / final)
    digest_is_whole(plant, "renamed", 4, time.time(), cell, "writers that use a temporary name and rename at the end")


def test_writer_that_preallocates(plant: Plant, cell: Cell) -> None:
    """The size is final from the start, and nothing but the open descriptor tells that bytes are missing."""
    (plant.inbox / "prealloc").mkdir()
    with (plant.inbox / "prealloc" / "a.png").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, len(BIG))
        time.sleep(4)  # four times the settle time
        file.write(BIG)
    digest_is_whole(plant, "prealloc", 1, time.time(), cell, "writer that preallocates, waits, then fills")


def test_writer_through_memory(plant: Plant, cell: Cell) -> None:
    """Dirtying mapped pages again changes neither size nor times."""
    (plant.inbox / "mmap").mkdir()
    with (plant.inbox / "mmap" / "a.png").open("w+b", buffering=0) as file:
        file.truncate(len(BIG))
        with mmap.mmap(file.fileno(), len(BIG)) as memory:
            memory[: len(BIG) // 2] = BIG[: len(BIG) // 2]
            time.sleep(4)
            memory[:] = BIG
            memory.flush()
    digest_is_whole(plant, "mmap", 1, time.time(), cell, "writer through a memory map")


@pytest.mark.slow
def test_writer_that_closes_and_opens_again(plant: Plant, cell: Cell) -> None:
    """A scanner that reopens its file for every page, two of them after a pause in which the file is taken.

    What was taken meanwhile is superseded, the end is right.
    """
    (plant.inbox / "pages").mkdir()
    path = plant.inbox / "pages" / "a.png"
    taken = []
    for page in range(5):
        with path.open("wb") as file:
            file.write(png(scan(50 + page, 200)))
        if page in {1, 3}:
            (digest, *_) = manifest(path.parent)[os.fsencode(path)]
            wait_for(lambda digest=digest: [job for job in plant.jobs("pages") if job.source_sha256 == digest],
                     30, "the file is taken as it is")  # fmt: skip
            taken.append(digest)
        time.sleep(0.7)
    originals = manifest(path.parent)
    last = originals[os.fsencode(path)][0]
    began = time.time()
    wait_for(lambda: [job.source_sha256 for job in plant.jobs("pages")] == [last], 60, "the last content is submitted")
    ended = plant.settle("pages", 1)
    assert_invariants(plant, originals, "pages")
    with plant.database.reading() as session:
        superseded = session.query(Job).filter_by(path=b"pages/a.png", state=JobState.SUPERSEDED).all()
    assert {job.source_sha256 for job in superseded} >= set(taken)
    assert last not in taken and len(plant.jobs("pages")) == 1
    cell.recovered("writer that closes and opens again four times, twice after its file was taken", ended - began)


def test_hard_links_and_copies(plant: Plant, cell: Cell) -> None:
    plant.drop("links", 1)
    first = plant.inbox / "links" / "0.png"
    os.link(first, plant.inbox / "links" / "1.png")
    (plant.inbox / "links" / "2.png").write_bytes(first.read_bytes())
    began, originals = time.time(), manifest(plant.inbox / "links")
    ended = plant.settle("links", 3)
    assert_invariants(plant, originals, "links")
    states = sorted(job.state for job in plant.jobs("links"))
    assert states == [JobState.DONE, JobState.DUPLICATE, JobState.DUPLICATE]
    cell.recovered("a hard link and a copy of the same bytes", ended - began)


def test_rename_storm(plant: Plant, cell: Cell) -> None:
    """Written under temporary names, renamed back and forth for seconds; only the last names count."""
    plant.drop("storm", 6)
    folder = plant.inbox / "storm"
    for turn in range(30):
        for number in range(6):
            old, new = (
                (f"{number}.png", f"{number}-{turn}.part")
                if turn % 2 == 0
                else (f"{number}-{turn - 1}.part", f"{number}.png")
            )
            (folder / old).rename(folder / new)
        time.sleep(0.1)
    began, originals = time.time(), manifest(folder)
    ended = plant.settle("storm", 6)
    assert_invariants(plant, originals, "storm")
    cell.recovered("rename storm (180 renames in 3 s)", ended - began)


@pytest.mark.slow
def test_directory_moved_in_and_out(plant: Plant, cell: Cell) -> None:
    originals = plant.drop("moved", 3)
    plant.settle("moved", 3)
    outputs = manifest(plant.output / "moved")
    elsewhere = plant.installation.base / "elsewhere"
    (plant.inbox / "moved").rename(elsewhere)
    with_rows = lambda state: all(row.state is state for row in rows(plant, "moved"))  # noqa: E731
    wait_for(lambda: with_rows(FileState.VANISHED), 75, "the record knows that they are gone")
    assert manifest(plant.output / "moved") == outputs, "derivatives stay when their masters go"
    elsewhere.rename(plant.inbox / "moved")
    began = time.time()
    wait_for(lambda: with_rows(FileState.SUBMITTED), 60, "they are known again")
    assert_invariants(plant, originals, "moved")
    assert {job.claim_no for job in plant.jobs("moved")} == {1}, "nothing is done twice"
    cell.recovered("directory moved out of the root and back in", time.time() - began)


def rows(plant: Plant, folder: str) -> list[SourceFile]:
    with plant.database.reading() as session:
        return [row for row in session.query(SourceFile) if row.path.startswith(f"{folder}/".encode())]


def test_what_is_no_scan(plant: Plant, cell: Cell) -> None:
    """Links, fifos, sockets, devices, links to folders outside: none is opened, none is followed."""
    plant.drop("odd", 1)
    folder = plant.inbox / "odd"
    outside = plant.installation.base / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(png(scan(7)))
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "loop").symlink_to(folder)
    (folder / "out").symlink_to(outside)
    os.mkfifo(folder / "fifo.png")
    os.mknod(folder / "socket.png", 0o600 | stat.S_IFSOCK)
    if os.getuid() == 0:
        os.mknod(folder / "null.png", 0o20666, os.makedev(1, 3))
    began, originals, secret = time.time(), manifest(folder), manifest(outside)
    ended = plant.settle("odd", 1)
    time.sleep(3)
    assert_invariants(plant, originals, "odd")
    assert manifest(outside) == secret
    assert [job.path for job in plant.jobs("odd")] == [b"odd/0.png"]
    for name in {entry.name for entry in folder.iterdir()} - {"0.png"}:
        assert plant.installation.json("why", str(folder / name))["state"] == "ignored"
    cell.recovered("links, a loop, a fifo, a socket and a device among scans", ended - began)


@pytest.mark.slow
def test_burst_of_30000_files(plant: Plant, cell: Cell) -> None:
    """More than inotify's queue holds while nobody reads from it; forty scans among files that are none."""
    folder = plant.inbox / "burst"
    folder.mkdir()
    began_s = time.monotonic()
    os.kill(plant.part("watch"), signal.SIGSTOP)
    for number in range(30_000):
        (folder / f"{number:05}.txt").touch()
        if number % 750 == 0:
            (folder / f"{number:05}.png").write_bytes(png(scan(10_000 + number, 24)))
    wrote_s = time.monotonic() - began_s
    originals, began = manifest(folder), time.time()
    os.kill(plant.part("watch"), signal.SIGCONT)
    ended = plant.settle("burst", 40, timeout_s=200)
    log = plant.installation.state_dir / "logs" / "watch.log"
    assert "queue overflow" in log.read_text(), "inotify's queue held them all"
    wait_for(lambda: sum(1 for row in rows(plant, "burst") if row.state is FileState.IGNORED) == 30_000, 120, "rows")
    waited_s = time.time() - began
    last_queued_s = max(job.created_at.timestamp() for job in plant.jobs("burst")) - began
    assert len(plant.jobs("burst")) == 40
    assert_invariants(plant, originals, "burst")
    cell.recovered(
        f"30,000 files at once: inotify's queue overflows (written in {wrote_s:.1f} s)", last_queued_s,
        f"(until the last scan is queued; last derivative {ended - began:.0f} s, last row {waited_s:.0f} s)",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "limit"), [("watches", 0), ("watches", 1), ("instances", 0)])
def test_no_inotify_watches(tmp_path: Path, cell: Cell, kind: str, limit: int) -> None:
    """A user namespace has limits of its own: no watch for the root, none for folders that come later, or no inotify.

    The root is scanned instead, and says so.
    """
    prefix = ["unshare", "-Ur", "sh", "-c", f'echo {limit} > /proc/sys/user/max_inotify_{kind}; exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    with running(tmp_path, prefix=prefix, PHOTOCHROM_SCAN_INTERVAL_S="5") as plant:
        plant.drop("one folder more", 1)

        def is_told() -> bool:
            (root,) = plant.installation.json("status")["roots"]
            return root["mode"] == "scan" and f"max_user_{kind}" in root["mode_reason"]

        wait_for(is_told, 30, "the mode is scan, and why")
        plant.drop("deaf", 1)
        plant.settle("deaf", 1)
        (plant.inbox / "deaf" / "late.png").write_bytes(png(scan(404)))  # where nothing listens
        began, originals = time.time(), manifest(plant.inbox / "deaf")
        ended = plant.settle("deaf", 2)
        assert_invariants(plant, originals, "deaf")
    cell.recovered(f"inotify limit: {limit} {kind} (scan every 5 s)", ended - began)


def test_names_of_any_bytes(plant: Plant, cell: Cell) -> None:
    folder = os.fsencode(plant.inbox / "names")
    os.mkdir(folder)
    twins = ("Über.png".encode(), "U\u0308ber.png".encode(), b"case.png", b"CASE.png")
    names = (*twins, b"line\nend.png", b"not \xff utf-8.png", b"n" * 251 + b".png", b"-rf.png", b"$(touch x).png")
    for number, name in enumerate(names):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(png(scan(300 + number)))
    began, originals = time.time(), manifest(plant.inbox / "names")
    ended = plant.settle("names", len(names))
    assert_invariants(plant, originals, "names")
    with plant.database.reading() as session:
        for name in names:
            assert by_path(session, plant.jobs("names")[0].root, b"names/" + name) is not None
    cell.recovered("names: NFC/NFD and case twins, newline, invalid UTF-8, 255 bytes", ended - began)
