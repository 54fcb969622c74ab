"""The record follows the folder: real folders, real events, a real database."""

import hashlib
import os
import shutil
import threading
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from daemon import intake, reconcile, scan
from daemon.events import Hints
from daemon.reconcile import Reconciler
from worker import files, jobs, leases, mounts
from worker.db import Database
from worker.errors import ScanVanished
from worker.overview import blocked_files
from worker.strikes import Strikes
from worker.tables import FileState, Job, JobEvent, Root, SourceFile

PNG = b"\x89PNG\r\n\x1a\n"
#: by the clock that a test moves: nothing settles by itself, and nothing is waited for
QUIET_S = 10.0


class Folder:
    """A watched folder, its record, and what one look at it makes of both."""

    def __init__(self, database: Database, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.now_s = 0.0
        self.tried: list[str] = []
        self.database, self.path = database, path
        self.start_again()

    def start_again(self) -> None:
        """As a watcher begins: it knows what the record knows."""
        with self.database.writing() as session:
            files.watch_root(
                session, name="r", path=bytes(self.path), output=b"/out", mode="scan", fs_type="ext4", identity={},
                watcher="me", lease_s=60,
            )  # fmt: skip
        self.reconciler = Reconciler(self.database, "r", bytes(self.path), QUIET_S, priority=3)

    def put(self, name: str | bytes, content: bytes | None = None) -> Path:
        path = self.path / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG + os.fsencode(name) if content is None else content)
        return path

    def scan(self) -> None:
        assert self.reconciler.full_scan(lambda: True)

    def take(self, after_s: float = QUIET_S) -> None:
        """Take what has been quiet for long enough, so much later."""
        self.now_s += after_s
        self.reconciler.take_settled()

    def settle(self) -> None:
        """Take all that is quiet; only the limit that every test has ends the wait: disks may be slow."""
        while len(self.reconciler.tracker):
            self.take()

    def look(self) -> None:
        self.scan()
        self.settle()

    def row(self, name: str | bytes) -> SourceFile:
        with self.database.reading() as session:
            row = files.by_path(session, "r", os.fsencode(name))
        assert row is not None, name
        return row

    def states(self) -> dict[str, str]:
        with self.database.reading() as session:
            return {os.fsdecode(row.path): row.state.value for row in session.scalars(sa.select(SourceFile))}

    def jobs(self, name: str | bytes | None = None) -> list[tuple[str, str]]:
        """(state, sha256) of a file's jobs, or of all, oldest first."""
        query = sa.select(Job).order_by(Job.id)
        if name is not None:
            query = query.where(Job.path == os.fsencode(name))
        with self.database.reading() as session:
            return [(job.state.value, job.source_sha256) for job in session.scalars(query)]

    def events(self) -> int:
        with self.database.reading() as session:
            return session.scalar(sa.select(sa.func.count(JobEvent.id))) or 0


@pytest.fixture
def folder(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    folder = Folder(database, tmp_path / "in")
    monkeypatch.setattr(reconcile, "time", types.SimpleNamespace(monotonic=lambda: folder.now_s))
    return folder


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_new_file_settles_and_is_submitted_once(folder: Folder) -> None:
    folder.put("1923/a.png", PNG)
    folder.scan()
    assert folder.states() == {"1923/a.png": "settling"}
    assert folder.jobs() == []
    folder.settle()
    folder.look()
    folder.look()
    assert folder.states() == {"1923/a.png": "submitted"}
    assert folder.jobs() == [("queued", _sha256(PNG))]
    row = folder.row("1923/a.png")
    assert (row.sha256, row.size_bytes, row.directory, row.job_id) == (_sha256(PNG), len(PNG), b"1923", 1)


def test_a_second_look_writes_nothing(folder: Folder) -> None:
    folder.put("a.png")
    folder.put("notes.txt", b"no picture")
    folder.look()
    statements: list[str] = []
    sa.event.listen(folder.database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    folder.look()
    written = [text for text in statements if text.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert len(written) == 1 and written[0].startswith("UPDATE roots"), written


def test_a_file_that_is_touched_is_hashed_again_and_not_done_again(folder: Folder) -> None:
    path = folder.put("a.png")
    folder.look()
    before, since, moves = folder.jobs(), folder.row("a.png").since, folder.events()
    os.utime(path, ns=(1, 1))
    path.chmod(0o600)
    folder.scan()
    assert folder.states() == {"a.png": "settling"}
    folder.settle()
    assert (folder.jobs(), folder.events()) == (before, moves)
    row = folder.row("a.png")
    assert (row.state, row.mtime_ns, row.job_id) == (FileState.SUBMITTED, 1, 1)
    assert row.since >= since


def test_new_content_is_a_new_job_and_old_content_again_another(folder: Folder) -> None:
    one, two = PNG + b"one", PNG + b"two"
    for content in (one, two, one):
        folder.put("a.png", content)
        folder.look()
    assert folder.jobs() == [("superseded", _sha256(one)), ("superseded", _sha256(two)), ("queued", _sha256(one))]
    assert folder.row("a.png").job_id == 3


def test_a_file_replaced_by_rename_is_seen(folder: Folder) -> None:
    folder.put("a.png", PNG + b"one")
    folder.look()
    shutil.copystat(folder.path / "a.png", folder.put("b.png", PNG + b"two"))
    (folder.path / "b.png").rename(folder.path / "a.png")
    folder.look()
    assert [state for state, _ in folder.jobs("a.png")] == ["superseded", "queued"]


def test_a_file_that_goes_is_vanished_its_job_stays_and_it_may_come_back(folder: Folder) -> None:
    path = folder.put("a.png")
    folder.put("deep/er/b.png")
    folder.look()
    path.unlink()
    shutil.rmtree(folder.path / "deep")
    folder.look()
    assert folder.states() == {"a.png": "vanished", "deep/er/b.png": "vanished"}
    assert [state for state, _ in folder.jobs()] == ["queued", "queued"]
    folder.put("a.png")
    folder.put("deep/er/b.png")
    folder.look()
    assert set(folder.states().values()) == {"submitted"}
    assert [state for state, _ in folder.jobs()] == ["queued", "queued"], "the same bytes: nothing new to do"


def test_a_file_that_goes_while_it_settles_is_vanished(folder: Folder) -> None:
    path = folder.put("a.png")
    folder.scan()
    path.unlink()
    folder.settle()
    assert folder.states() == {"a.png": "vanished"}
    assert folder.jobs() == []


def test_a_job_that_missed_its_file_is_sent_back_when_the_file_is_there(folder: Folder) -> None:
    folder.put("a.png")
    folder.look()
    rules = Strikes(failures=3, lost=5, retry_s=1, wait_s=1)
    with folder.database.writing() as session:
        job = jobs.claim(session, 1, worker="w", device="CPU", host="h", model_version="v", lease_s=20)
        assert job is not None
        jobs.fail(session, job, ScanVanished("gone"), rules)
    folder.look()
    assert [state for state, _ in folder.jobs()] == ["queued"]


def test_a_folder_moved_in_with_all_that_is_in_it(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for number in range(5):
        (outside / str(number)).mkdir(parents=True)
        (outside / str(number) / "a.png").write_bytes(PNG + bytes([number]))
    outside.rename(folder.path / "box")
    folder.look()
    assert folder.states() == {f"box/{number}/a.png": "submitted" for number in range(5)}


def test_a_folder_renamed_inside(folder: Folder) -> None:
    folder.put("old/deep/a.png", PNG)
    folder.look()
    (folder.path / "old").rename(folder.path / "new")
    folder.look()
    assert folder.states() == {"old/deep/a.png": "vanished", "new/deep/a.png": "submitted"}


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe.png", b"a\nb.png", b"x" * 251 + b".png", b"\xffdir/a.png", "Größe.png".encode(), b"%s'\";--.png"],
)
def test_odd_names_are_names(folder: Folder, name: bytes) -> None:
    folder.put(name, PNG)
    folder.look()
    row = folder.row(name)
    assert (row.state, row.path, row.directory) == (FileState.SUBMITTED, name, os.path.dirname(name))
    assert row.display_path.isprintable()
    with folder.database.reading() as session:
        assert session.get_one(Job, row.job_id).path == name


def test_twins_in_unicode_are_two_files(folder: Folder) -> None:
    for name in ("\u00fc.png", "u\u0308.png"):
        folder.put(name)
    folder.look()
    assert len(folder.jobs()) == 2


def test_what_is_ignored_by_name_is_not_even_recorded(folder: Folder) -> None:
    folder.put("@eaDir/a.jpg/thumb.jpg")
    folder.put(".hidden/b.png")
    folder.put("c.png.part")
    (folder.path / "link.png").symlink_to(folder.put("real.png"))
    os.mkfifo(folder.path / "fifo.png")
    folder.look()
    assert folder.states() == {"real.png": "submitted"}


def test_what_is_left_alone_later_says_so_and_is_taken_when_it_is_not(folder: Folder) -> None:
    folder.put("done.png")
    folder.look()
    folder.put("waits.png")
    folder.put("box/waits.png")
    folder.put("gone.png").unlink()
    folder.scan()
    pattern = folder.put(".photochromignore", b"*.png\nbox/\n")
    folder.scan()
    assert folder.states() == {"done.png": "ignored", "waits.png": "ignored", "box/waits.png": "ignored"}
    assert folder.row("done.png").reason == "It is left alone by the pattern *.png."
    assert folder.row("box/waits.png").reason == "It is left alone by the pattern box/."
    assert len(folder.reconciler.tracker) == 0
    statements: list[str] = []
    sa.event.listen(folder.database.engine, "before_cursor_execute", lambda *it: statements.append(it[2]))
    folder.scan()
    assert not [it for it in statements if it.startswith("UPDATE source_files")], "a second look writes nothing"
    (folder.path / "waits.png").unlink()
    folder.scan()
    assert folder.states()["waits.png"] == "vanished"
    pattern.unlink()
    folder.look()
    assert folder.states() == {"done.png": "submitted", "waits.png": "vanished", "box/waits.png": "submitted"}
    assert len(folder.jobs("done.png")) == 1, "it was submitted already"


def test_a_pattern_that_is_no_utf_8_does_not_end_the_scan(folder: Folder) -> None:
    """Nor one that no text column can hold; what comes after the file that it fits is taken all the same."""
    names = [b"Entw\xfcrf.png", b"a.png"]
    for name in names:
        folder.put(name)
    folder.look()
    folder.put(".photochromignore", b"Entw\xfcrf*\n[a\0]*\n")
    folder.put("later/b.png")
    folder.look()
    assert [folder.row(name).reason for name in names] == [
        r"It is left alone by the pattern Entw\xfcrf*.",
        r"It is left alone by the pattern [a\x00]*.",
    ]
    assert folder.row("later/b.png").state is FileState.SUBMITTED


def test_a_hint_about_an_ignored_folder_is_not_followed(folder: Folder) -> None:
    folder.put("@eaDir/a.jpg/thumb.jpg")
    folder.reconciler.look_at(b"@eaDir/a.jpg", deep=False)
    folder.reconciler.look_at(b"@eaDir", deep=True)
    folder.settle()
    assert folder.states() == {}


def test_a_folder_replaced_by_a_link_has_vanished(folder: Folder, tmp_path: Path) -> None:
    folder.put("a/deep/x.png")
    folder.look()
    (folder.path / "a").rename(tmp_path / "outside")
    (folder.path / "a").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "deep" / "new.png").write_bytes(PNG)
    folder.look()
    folder.reconciler.look_at(b"a/deep", deep=True)
    folder.settle()
    assert folder.states() == {"a/deep/x.png": "vanished"}


def test_no_picture_is_ignored_until_it_becomes_one(folder: Folder) -> None:
    folder.put("notes", b"words")
    folder.look()
    assert folder.states() == {"notes": "ignored"}
    folder.put("notes", PNG)
    folder.look()
    assert folder.states() == {"notes": "submitted"}


def _unreadable(monkeypatch: pytest.MonkeyPatch, path: Path, function: str) -> None:
    """As for a user who may not: root may read everything."""
    real: Callable[..., object] = getattr(os, function)

    def refuse(what: object, *args: object, **more: object) -> object:
        if os.fsencode(what).startswith(bytes(path)):  # type: ignore[arg-type]
            raise PermissionError(13, "Permission denied")
        return real(what, *args, **more)

    monkeypatch.setattr(os, function, refuse)


def test_a_file_that_may_not_be_read_is_blocked_and_taken_when_it_may(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put("a.png")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(intake, "open_below", refuse)  # as for a user who may not: root may read everything
        folder.look()
        row = folder.row("a.png")
        assert (row.state, "EACCES" in row.reason) == (FileState.BLOCKED, True)
        folder.look()
        assert folder.row("a.png").since == row.since, "the same state all the time"
    folder.look()
    assert folder.states() == {"a.png": "submitted"}


def test_a_folder_that_cannot_be_read_loses_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put("a/x.png")
    folder.put("a/deep/y.png")
    folder.look()
    with monkeypatch.context() as patch:
        for function in ("scandir", "stat"):
            _unreadable(patch, folder.path / "a", function)
        folder.look()
        assert folder.states() == {"a": "blocked", "a/x.png": "submitted", "a/deep/y.png": "submitted"}
    folder.look()
    assert folder.states() == {"a/x.png": "submitted", "a/deep/y.png": "submitted"}


@pytest.mark.parametrize("unreadable", ["", "box"])
def test_a_folder_that_cannot_be_listed_is_counted_and_taken_when_it_can(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, unreadable: str
) -> None:
    folder.put("box/x.png")
    folder.put("box/deep/y.png")
    with monkeypatch.context() as patch:
        _unreadable(patch, folder.path / unreadable, "scandir")
        folder.look()
        row = folder.row(unreadable)
        assert row.state is FileState.BLOCKED and "It cannot be listed (EACCES: Permission denied)" in row.reason
        folder.look()
        assert (folder.states(), folder.row(unreadable).since) == ({unreadable: "blocked"}, row.since)
        with folder.database.reading() as session:
            assert session.get_one(Root, "r").scanned_at is not None, "or a drain would wait for ever"
            full_path = os.fspath(folder.path / unreadable).rstrip("/")
            assert [path.rstrip("/") for path, _ in blocked_files(session)] == [full_path]
    folder.reconciler = Reconciler(folder.database, "r", bytes(folder.path), QUIET_S, priority=3)  # a new watcher
    folder.look()
    assert folder.states() == {"box/x.png": "submitted", "box/deep/y.png": "submitted"}


def test_an_entry_that_cannot_be_looked_at_is_blocked_alone(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put("a.png")
    folder.put("done.png")
    folder.look()
    folder.put("new.png")
    listing = scan.list_directory(bytes(folder.path), b"")
    for name in (b"new.png", b"done.png"):
        del listing.files[name]
        listing.blocked[name] = "EIO: Input/output error"
    folder.reconciler.reconcile(listing)
    assert folder.states() == {"a.png": "submitted", "done.png": "submitted", "new.png": "blocked"}
    assert "It cannot be looked at (EIO" in folder.row("new.png").reason
    folder.look()
    assert set(folder.states().values()) == {"submitted"}
    assert folder.row("new.png").size_bytes == (folder.path / "new.png").stat().st_size


def _seconds_of_failures(folder: Folder, seconds: int) -> list[float]:
    """Let time go on without any scan, and tell when something was tried and failed."""
    failures: list[float] = []
    for _ in range(seconds):
        folder.take(after_s=1)
        failures += [folder.now_s] * (len(folder.tried) - len(failures))
    return failures


def test_a_file_that_cannot_be_read_has_its_own_clock(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No event tells that a disk is well again, and the next scan may be more than a minute away."""
    folder.put("a.png")

    def refuse(*_: object) -> None:
        folder.tried.append("a.png")
        raise OSError(5, "Input/output error")

    folder.scan()
    with monkeypatch.context() as patch:
        patch.setattr(intake, "open_below", refuse)
        failures = _seconds_of_failures(folder, 150)
        assert failures == [QUIET_S, 25, 55, 95, 135]
        assert "EIO" in folder.row("a.png").reason
    folder.take(after_s=40)
    assert folder.states() == {"a.png": "submitted"}


def test_a_folder_that_cannot_be_listed_has_its_own_clock(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put("box/deep/a.png")
    real = os.scandir

    def refuse(path: bytes) -> object:
        if path.endswith(b"/box"):
            folder.tried.append("box")
            raise OSError(116, "Stale file handle")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        folder.scan()
        folder.tried.clear()
        assert _seconds_of_failures(folder, 100) == [15, 45, 85]
        assert "ESTALE" in folder.row("box").reason
    folder.take(after_s=40)
    assert folder.states() == {"box/deep/a.png": "settling"}, "no scan was needed"


def test_a_root_that_is_gone_loses_nothing(folder: Folder, tmp_path: Path) -> None:
    folder.put("a/x.png")
    folder.look()
    folder.path.rename(tmp_path / "away")
    assert not folder.reconciler.full_scan(lambda: True)
    assert folder.states() == {"a/x.png": "submitted"}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_share_below_the_root_that_is_unmounted_loses_nothing(
    folder: Folder, restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = {b"share": "31"}
    monkeypatch.setattr(mounts, "mounts_below", lambda path: mounted)
    inside, beside = folder.put("share/box/a.png"), folder.put("sharealike/b.png")
    folder.look()
    stored = folder.path.with_name("stored")
    (folder.path / "share").rename(stored)
    (folder.path / "share").mkdir()  # what a mount point looks like when nothing is mounted there
    beside.unlink()
    mounted.clear()
    if restarted:
        folder.start_again()
    folder.look()
    assert folder.states() == {"share/box/a.png": "submitted", "sharealike/b.png": "vanished"}
    (folder.path / "share").rmdir()
    stored.rename(folder.path / "share")
    mounted[b"share"] = "32"
    inside.unlink()  # while it is mounted, absence is absence
    folder.look()
    assert folder.states()["share/box/a.png"] == "vanished"


def test_a_mount_point_that_is_removed_or_used_is_one_no_longer(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = {b"one": "31", b"two": "32"}
    monkeypatch.setattr(mounts, "mounts_below", lambda path: mounted)
    for share in ("one", "two"):
        folder.put(f"{share}/a.png")
    folder.look()
    mounted.clear()
    shutil.rmtree(folder.path / "one")
    (folder.path / "two" / "a.png").rename(folder.path / "two" / "c.png")
    folder.look()
    assert folder.states() == {"one/a.png": "vanished", "two/a.png": "vanished", "two/c.png": "submitted"}


def test_a_scan_that_is_stopped_is_not_recorded_as_complete(folder: Folder) -> None:
    folder.put("a/x.png")
    assert not folder.reconciler.full_scan(lambda: False)
    with folder.database.reading() as session:
        assert session.get_one(Root, "r").scanned_at is None
    folder.look()
    with folder.database.reading() as session:
        root = session.get_one(Root, "r")
    assert root.files == 1 and root.scanned_at is not None and root.scan_started_at is not None
    assert root.scan_started_at <= root.scanned_at


def test_a_slow_writer_is_waited_for(folder: Folder) -> None:
    path = folder.path / "a.png"
    with path.open("wb", buffering=0) as stream:
        for byte in PNG:
            stream.write(bytes([byte]))
            folder.scan()
            folder.take(after_s=0.9 * QUIET_S)
            assert folder.jobs() == []
    folder.look()
    assert folder.jobs() == [("queued", _sha256(PNG))]


def test_a_job_a_worker_ends_this_instant_is_submitted_later(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder.put("a.png", PNG)
    folder.look()
    path.write_bytes(PNG + b"2")
    submit = jobs.submit
    raised = []

    def moved(*args: object, **more: object) -> object:
        if not raised:
            raised.append(True)
            raise jobs.JobMoved("a worker was quicker")
        return submit(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "submit", moved)
    folder.look()
    assert folder.states() == {"a.png": "settling"}
    folder.look()
    assert [state for state, _ in folder.jobs()] == ["superseded", "queued"]


def test_three_thousand_files_at_once_are_all_submitted_once(folder: Folder) -> None:
    for number in range(3000):
        folder.put(f"{number % 30}/{number}.png", PNG + str(number).encode())
    began_s = time.monotonic()
    folder.look()
    print(f"3000 files in {time.monotonic() - began_s:.1f} s")
    assert len(folder.states()) == 3000 and set(folder.states().values()) == {"submitted"}
    assert len(set(folder.jobs())) == 3000
    assert len(folder.reconciler.tracker) == 0


def test_a_watcher_that_lost_its_right_while_it_was_stopped_records_nothing(folder: Folder) -> None:
    """It hashed the old content; meanwhile another one took the new, which was coloured."""
    first = folder.put("a.png", PNG + b"old")
    folder.look()
    first.write_bytes(PNG + b"newer")
    folder.reconciler._refuse = partial(leases.refuse_another, name="r", watcher="me")
    folder.scan()
    before = folder.row("a.png")
    with folder.database.writing() as session:
        session.execute(sa.update(Root).values(watcher="other"))
    with pytest.raises(leases.WatchedByAnother):
        folder.take()
    folder.put("b.png")
    with pytest.raises(leases.WatchedByAnother):
        folder.reconciler.full_scan(lambda: True)
    after = folder.row("a.png")
    assert folder.states() == {"a.png": "settling"}
    assert (after.sha256, after.job_id, after.since) == (before.sha256, before.job_id, before.since)
    with folder.database.reading() as session:
        assert [job.state for job in session.scalars(sa.select(Job))] == ["queued"]


# --- hints -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hints(folder: Folder) -> "Hints":
    hints = Hints(folder.path)
    if not hints.start():
        pytest.skip("this system has no watches left")
    return hints


def _follow(folder: Folder, hints: Hints, until: Callable[[], bool]) -> None:
    """Only hints, no scan."""
    deadline = time.monotonic() + 30
    while not until():
        for directory, deep in hints.take():
            folder.reconciler.look_at(directory, deep=deep)
        folder.take()
        assert time.monotonic() < deadline, folder.states()
        time.sleep(0.01)


def test_hints_alone_bring_in_what_happens(folder: Folder, hints: Hints, tmp_path: Path) -> None:
    folder.put("a.png")
    _follow(folder, hints, lambda: folder.states() == {"a.png": "submitted"})
    (tmp_path / "b.png").write_bytes(PNG)
    (tmp_path / "b.png").rename(folder.path / "b.png")
    os.link(folder.path / "a.png", folder.path / "c.png")
    _follow(folder, hints, lambda: set(folder.states()) == {"a.png", "b.png", "c.png"})
    (folder.path / "b.png").unlink()
    _follow(folder, hints, lambda: folder.states().get("b.png") == "vanished")
    hints.stop()


def test_a_tree_moved_in_is_found_by_one_hint_and_watched_after(folder: Folder, hints: Hints, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "a.png").write_bytes(PNG)
    tree.rename(folder.path / "tree")
    _follow(folder, hints, lambda: folder.states() == {"tree/deep/er/a.png": "submitted"})
    folder.put("tree/deep/er/b.png")
    _follow(folder, hints, lambda: folder.states().get("tree/deep/er/b.png") == "submitted")
    hints.stop()


def test_a_folder_whose_rights_change_is_looked_at_with_all_that_is_below(folder: Folder, hints: Hints) -> None:
    """As when it may be read at last: until then no watch could be put on it."""
    folder.put("locked/deep/a.png")
    folder.put("marker.txt", b"the last event that nobody follows")
    deadline = time.monotonic() + 30
    while b"" not in dict(hints.take()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (folder.path / "locked").chmod(0o750)
    _follow(folder, hints, lambda: "locked/deep/a.png" in folder.states())
    hints.stop()


def test_looking_at_a_folder_hints_at_nothing(folder: Folder, hints: Hints) -> None:
    """Else every look would call for the next one, for ever."""
    folder.put("a.png")
    _follow(folder, hints, lambda: folder.states() == {"a.png": "submitted"})
    folder.put("marker.txt", b"the last event of this test")
    _follow(folder, hints, lambda: "marker.txt" in folder.states())
    hints.take()
    for _ in range(20):
        folder.look()
    folder.put("end/marker", b"")
    deadline = time.monotonic() + 30
    seen: dict[bytes, bool] = {}
    while b"end" not in seen:
        seen |= dict(hints.take())
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert set(seen) <= {b"", b"end"}
    hints.stop()


def test_stopped_hints_stay_silent_and_leave_no_thread(folder: Folder) -> None:
    before = set(threading.enumerate())
    hints = Hints(folder.path)
    if not hints.start():
        pytest.skip("this system has no watches left")
    hints.stop()
    hints.stop()
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, "a thread goes on"
        time.sleep(0.01)
    hints.take()
    folder.put("a.png")
    assert hints.take() == []


def test_a_root_that_is_gone_has_no_events_and_says_so(tmp_path: Path) -> None:
    assert not Hints(tmp_path / "gone").start()
