"""`why PATH` has one true sentence for every kind of path."""

import datetime as dt
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from daemon import questions
from daemon.explain import Explanation, why
from worker import files, identity, jobs, overview, training_runs
from worker.db import Database, after
from worker.errors import OutputBlocked, OutputFull, PhotochromError, ScanTruncated
from worker.files import Stamp
from worker.settings import RootSettings, Settings
from worker.strikes import in_force
from worker.tables import FileState, Job, JobEvent, JobState

SHA256 = "a" * 64


class Place:
    """A watched folder with a record, and the question."""

    def __init__(self, database: Database, tmp_path: Path) -> None:
        self.database = database
        self.root, self.output = tmp_path / "in", tmp_path / "out"
        self.root.mkdir()
        self.output.mkdir()
        self.settings = Settings(roots=(RootSettings(path=self.root, output=self.output, name="archive"),))

    def watch(self, scanned: bool = True) -> None:
        with self.database.writing() as session:
            files.watch_root(
                session, name="archive", path=bytes(self.root), output=bytes(self.output), mode="scan", fs_type="ext4",
                identity={}, watcher="me", lease_s=60,
            )  # fmt: skip
            if scanned:
                files.scanned(session, "archive", seconds=1, files=1)

    def file(self, name: bytes, state: FileState = FileState.SETTLING, reason: str = "", exists: bool = True) -> int:
        if exists:
            path = self.root / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        with self.database.writing() as session:
            stamp = Stamp.of(os.lstat(os.path.join(bytes(self.root), name))) if exists else Stamp(1, 1, 1, 1)
            files.found(session, "archive", name, stamp)
            session.flush()
            row = files.by_path(session, "archive", name)
            assert row is not None
            files.put(session, row.id, state, reason)
            return row.id

    def job(self, name: bytes, **changes: Any) -> int:
        file_id = self.file(name)
        with self.database.writing() as session:
            row = files.by_path(session, "archive", name)
            assert row is not None
            job, _ = jobs.submit(session, row, SHA256, priority=3)
            files.put(session, file_id, FileState.SUBMITTED, "", job_id=job.id)
            if changes:
                session.execute(sa.update(Job).where(Job.id == job.id).values(**changes))
            return job.id

    def ask(self, path: str | bytes | Path) -> Explanation:
        raw = os.path.join(bytes(self.root), os.fsencode(path))
        with self.database.reading() as session:
            explanation = why(session, self.settings, raw)
        assert explanation.sentence.isprintable() and explanation.sentence.endswith((".", "?"))
        assert explanation.path.isprintable()
        return explanation


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Place:
    place = Place(database, tmp_path)
    place.watch()
    return place


def test_a_path_outside(place: Place, tmp_path: Path) -> None:
    for path in (tmp_path / "elsewhere.tif", "/", place.root.parent, str(place.root) + "side/a.tif"):
        said = place.ask(path)
        assert (said.state, said.job_id) == ("outside", None)
        assert str(place.root) in said.sentence


def test_the_root_and_a_folder_in_it(place: Place) -> None:
    (place.root / "1923").mkdir()
    assert place.ask(b"").state == place.ask(b"1923").state == place.ask(b"1923/").state == "folder"


def test_a_folder_that_the_watcher_cannot_list(place: Place) -> None:
    (place.root / "1923").mkdir()
    with place.database.writing() as session:
        files.block(session, "archive", b"1923", "It cannot be listed (EACCES: Permission denied).")
    said = place.ask(b"1923")
    assert said.state == "blocked" and "EACCES" in said.sentence


def test_a_file_not_seen_yet(place: Place) -> None:
    (place.root / "a.tif").write_bytes(b"x")
    said = place.ask("a.tif")
    assert said.state == "unseen" and "one comes every 60 s" in said.sentence


def test_a_file_in_a_root_that_nobody_watches_yet(database: Database, tmp_path: Path) -> None:
    place = Place(database, tmp_path)
    (place.root / "a.tif").write_bytes(b"x")
    assert "Is `photochrom up` running?" in place.ask("a.tif").sentence
    place.watch(scanned=False)
    assert "has not been scanned" in place.ask("a.tif").sentence


def test_a_file_that_never_was(place: Place) -> None:
    assert place.ask("nothing.tif").state == "missing"
    assert place.ask("no/folder/nothing.tif").state == "missing"


@pytest.mark.parametrize("state", [state for state in FileState if state is not FileState.SUBMITTED])
def test_a_file_without_a_job_says_its_state_and_reason(place: Place, state: FileState) -> None:
    place.file(b"a.tif", state, "The reason.", exists=state is not FileState.VANISHED)
    said = place.ask("a.tif")
    assert (said.state, said.job_id) == (state.value, None)
    assert said.sentence.endswith("UTC: The reason.")


def test_a_file_that_is_back_and_not_yet_scanned_is_not_said_to_be_gone(place: Place) -> None:
    place.file(b"a.tif", FileState.VANISHED, "It is no longer in the folder.")
    said = place.ask("a.tif")
    assert said.state == "unseen" and "no longer" not in said.sentence


def test_names_that_are_ignored(place: Place) -> None:
    for name in (".DS_Store", "@eaDir/x.jpg", "a.tif.part", "deep/Thumbs.db"):
        said = place.ask(name)
        assert said.state == "ignored" and "name pattern" in said.sentence


def test_what_is_no_regular_file(place: Place) -> None:
    (place.root / "link.tif").symlink_to("a.tif")
    os.mkfifo(place.root / "fifo.tif")
    assert "symbolic link" in place.ask("link.tif").sentence
    assert "fifo" in place.ask("fifo.tif").sentence
    assert place.ask("link.tif").state == place.ask("fifo.tif").state == "ignored"


def test_what_cannot_even_be_looked_at(place: Place) -> None:
    said = place.ask("x" * 300)
    assert said.state == "blocked" and "ENAMETOOLONG" in said.sentence


#: the question of somebody who is not root, whom nothing stops; what it needs is loaded and open before
AS_NOBODY = """
import os, pwd, sys
from pathlib import Path
from daemon import explain, questions
from worker import overview
from worker.db import open_database
from worker.settings import RootSettings, Settings

home, path = Path(sys.argv[1]), sys.argv[2]
settings = Settings(roots=(RootSettings(path=home, output=home.parent / "out", name="archive"),))
with open_database(sys.argv[3]).reading() as session:
    overview.database_time(session)
    if os.getuid() == 0:
        os.setgroups([])
        os.setuid(pwd.getpwnam("nobody").pw_uid)
    questions.why.make_context("why", [path])
    print(explain.why(session, settings, os.fsencode(path)).sentence)
"""


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "ignore_mode", "says"),
    [
        (0o311, 0o644, 0o644, "Blocked by EACCES (Permission denied): no scan sees into its folder {}/box; grant"),
        (0o311, 0o000, 0o644, "Blocked by EACCES (Permission denied): no scan sees into its folder {}/box; grant"),
        (0o644, 0o644, 0o644, "Blocked by EACCES (Permission denied): it cannot even be looked at."),
        (
            0o755,
            0o644,
            0o000,
            "Blocked by EACCES (Permission denied (box/.photochromignore)): no scan sees into its folder",
        ),
        (0o755, 0o000, 0o644, "Not seen yet: the last scan"),
    ],
)
def test_what_may_not_be_read_is_explained(
    database: Database, tmp_path: Path, folder_mode: int, file_mode: int, ignore_mode: int, says: str
) -> None:
    place = Place(database, tmp_path)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are for their owner only
        place.root = Path(folder)
        place.root.chmod(0o755)
        place.watch()
        (place.root / "box").mkdir()
        (place.root / "box" / "a.tif").write_bytes(b"x")
        (place.root / "box" / "a.tif").chmod(file_mode)
        (place.root / "box" / ".photochromignore").touch(ignore_mode)
        (place.root / "box").chmod(folder_mode)
        asked = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, folder, f"{folder}/box/a.tif", str(database.engine.url)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        (place.root / "box").chmod(0o755)
    assert says.format(folder) in asked.stdout, asked.stderr


#: the same question where the state directory is somebody else's
AS_STRANGER = """
import os, pwd, sys
from pathlib import Path
from daemon import questions
from worker.errors import DatabaseUnusable
from worker.settings import Settings

settings = Settings(state_dir=Path(sys.argv[1]))
if os.getuid() == 0:
    os.setgroups([])
    os.setuid(pwd.getpwnam("nobody").pw_uid)
try:
    questions.record(settings).__enter__()
except DatabaseUnusable as error:
    print(error)
"""


def test_a_state_directory_that_may_not_be_entered_is_told(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "state").mkdir(mode=0o700 if os.getuid() == 0 else 0)
        asked = subprocess.run(
            [sys.executable, "-c", AS_STRANGER, f"{folder}/state"], capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert f"The database in {folder}/state may not be looked at (Permission denied)." in asked.stdout, asked.stderr


def test_an_offline_root(place: Place) -> None:
    place.file(b"a.tif")
    with place.database.writing() as session:
        files.set_offline(session, "archive", "Mount it.")
    said = place.ask("a.tif")
    assert (said.state, "offline: Mount it." in said.sentence) == ("offline", True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": JobState.QUEUED}, "Waits in the queue since"),
        ({"state": JobState.QUEUED, "not_before": after(60), "claim_no": 1, "reason": "Full."}, "attempt 2. Full."),
        ({"state": JobState.QUEUED, "not_before": after(-60), "claim_no": 1, "reason": "Full."}, "Waits in the queue"),
        ({"state": JobState.RUNNING, "started_at": after(0), "worker": "w", "device": "CPU", "lease_until": after(20)},
         "by w on CPU."),
        ({"state": JobState.DONE, "output_path": b"a.tif", "display_output_path": "/out/a.tif",
          "output_sha256": "b" * 64, "model_version": "v1", "finished_at": after(0), "reason": "Coloured."},
         "by model v1: /out/a.tif (sha256 " + "b" * 64 + "). Coloured."),
        ({"state": JobState.NEEDS_REVIEW, "output_path": b"a.tif", "finished_at": after(0), "reason": "Pale."},
         "needs review"),
        ({"state": JobState.DUPLICATE, "output_path": b"a.tif", "finished_at": after(0), "reason": "Twin."},
         "Published as a copy"),
        ({"state": JobState.SKIPPED, "finished_at": after(0), "reason": "A film."}, "Skipped at"),
        ({"state": JobState.QUARANTINED, "finished_at": after(0), "reason": "Broken.", "claim_no": 3},
         "after 3 attempts: Broken. Repair or replace the file, or run `photochrom retry 1`."),
        ({"state": JobState.SUPERSEDED, "reason": "The scan has new content."}, "Superseded: The scan"),
    ],
)  # fmt: skip
def test_a_file_with_a_job_says_what_became_of_it(place: Place, changes: dict[str, Any], says: str) -> None:
    job_id = place.job(b"a.tif", **changes)
    said = place.ask("a.tif")
    assert (said.state, said.job_id) == (changes["state"].value, job_id)
    assert says in said.sentence


@pytest.mark.parametrize(
    ("lease_until", "lost", "what"),
    [
        (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), 1, "before 2026-01-02 03:04:05 UTC; it is given back to"),
        (after(7200), 1, "UTC; it is given back to the queue soon and done again."),  # the clock was put back since
        (after(-60), 5, "UTC; it is quarantined soon, as it has lost 5 workers."),
    ],
)
def test_a_job_whose_worker_fell_silent_is_not_said_to_be_worked_on(
    place: Place, lease_until: Any, lost: int, what: str
) -> None:
    place.job(b"a.tif", state=JobState.RUNNING, started_at=after(-99), worker="w", device="CPU", lost=lost,
              lease_until=lease_until)  # fmt: skip
    said = place.ask("a.tif").sentence
    assert said.startswith("Was being coloured since ") and " by w on CPU, which fell silent before " in said
    assert what in said


def _fails(place: Place, job_id: int, error: PhotochromError, at: dt.datetime) -> None:
    """Tried in vain, at a time."""
    with place.database.writing() as session:
        session.execute(sa.update(Job).values(not_before=None))
        job = jobs.claim(session, job_id, worker="w", device="CPU", host="h", model_version="v1", lease_s=20)
        assert job is not None
        jobs.fail(session, job, error, in_force(place.settings))
        session.flush()
        session.execute(sa.update(JobEvent).where(JobEvent.at >= after(-3600)).values(at=at))


def test_a_job_that_pauses_says_since_when_it_waits_for_the_same(place: Place) -> None:
    job_id, noon = place.job(b"a.tif"), dt.datetime(2026, 1, 2, 12, 0, tzinfo=dt.UTC)
    for minute, error, since in (
        (1, OutputFull("Full."), "12:01"),
        (2, OutputFull("Full, still."), "12:01"),
        (3, OutputBlocked("Forbidden."), "12:03"),
        (4, ScanTruncated("Cut off."), "12:04"),
        (5, ScanTruncated("Cut off."), "12:05"),
    ):
        _fails(place, job_id, error, noon + dt.timedelta(minutes=minute))
        said = place.ask("a.tif").sentence
        assert said.startswith(f"Waits since 2026-01-02 {since}:00 UTC until ") and said.endswith(str(error)), minute


def test_the_place_in_the_queue(place: Place) -> None:
    for number in range(3):
        place.job(b"%d.tif" % number, source_sha256=str(number) * 64)
    place.job(b"urgent.tif", priority=0, source_sha256="b" * 64)
    assert "3 before it" in place.ask("2.tif").sentence
    assert "0 before it" in place.ask("urgent.tif").sentence


def test_what_waits_while_nobody_watches_says_so(place: Place) -> None:
    place.file(b"settles.tif", reason="It was just found; it must be quiet first.")
    place.job(b"queued.tif")
    place.job(b"done.tif", state=JobState.SKIPPED, reason="It is in colour.")
    assert not any("nobody" in place.ask(name).sentence for name in ("settles.tif", "queued.tif"))
    with place.database.writing() as session:
        files.release_roots(session, "me")
    for name in ("settles.tif", "queued.tif"):
        assert "nobody watches its folder now: start `photochrom up`" in place.ask(name).sentence
    with place.database.reading() as session:
        seen = overview.overview(session)
    assert [root.watched for root in seen.roots] == [False]
    assert "nobody watches it: start `photochrom up`" in questions._status_text(seen, dt.datetime.now(dt.UTC), {})
    assert "nobody" not in place.ask("done.tif").sentence
    with place.database.writing() as session:
        files.set_offline(session, "archive", "It was not there.")
    assert "nobody watches its folder now" in place.ask("settles.tif").sentence


def test_what_was_settling_and_is_gone_is_not_said_to_settle_on(place: Place) -> None:
    place.file(b"a.tif", reason="It was just found; it must be quiet first.")
    (place.root / "a.tif").unlink()
    assert "is not there any more; the watcher has not looked yet." in place.ask("a.tif").sentence


def test_touched_after_its_job_it_settles(place: Place) -> None:
    place.job(b"a.tif", state=JobState.DONE, finished_at=dt.datetime.now(dt.UTC))
    with place.database.writing() as session:
        row = files.by_path(session, "archive", b"a.tif")
        assert row is not None
        files.put(session, row.id, FileState.SETTLING, "It was touched; it must be quiet first.")
    assert place.ask("a.tif").state == "settling"


def test_a_derivative_knows_its_master(place: Place) -> None:
    job_id = place.job(b"deep/\xff.tif", state=JobState.DONE, output_path=b"deep/\xff.tif", output_sha256=SHA256)
    said = place.ask(bytes(place.output) + b"/deep/\xff.tif")
    assert (said.state, said.job_id) == ("derivative", job_id)
    assert rf"{place.root}/deep/\xff.tif" in said.sentence
    assert place.ask(place.output / "other.tif").state == "outside"


def test_below_a_file_there_is_nothing(place: Place) -> None:
    place.file(b"a.png")
    assert place.ask("a.png/b").state == place.ask("a.png/b/c.png").state == "missing"


def test_ignored_after_it_was_queued_its_job_is_named(place: Place) -> None:
    job_id = place.job(b"a.tif")
    (place.root / ".photochromignore").write_text("a.*\n")
    said = place.ask("a.tif")
    assert (said.state, said.job_id) == ("ignored", job_id)
    assert said.sentence.endswith(f", but it was submitted before that: job {job_id} is queued.")
    assert place.ask("a.png").job_id is None


def _done(place: Place, name: bytes) -> Path:
    """A scan with its derivative."""
    derivative = place.output / os.fsdecode(name)
    derivative.write_bytes(b"colour")
    place.job(name, state=JobState.DONE, output_path=name, display_output_path=str(derivative), output_sha256=SHA256,
              reason="Coloured.")  # fmt: skip
    return derivative


def test_a_derivative_that_is_not_there_any_more(place: Place) -> None:
    derivative = _done(place, b"a.tif")
    assert "not there" not in place.ask("a.tif").sentence + place.ask(derivative).sentence
    derivative.unlink()
    for path in (place.root / "a.tif", derivative):
        assert "It is not there now: moved, deleted, or its disk is not mounted." in place.ask(path).sentence


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (JobState.QUEUED, "It is not there: its job is still to be done."),
        (JobState.RUNNING, "It is not there: its job is still to be done."),
        (JobState.QUARANTINED, "It is not there: its job ended without it."),
        (JobState.SUPERSEDED, "It is not there now: moved, deleted, or its disk is not mounted."),
    ],
)
def test_a_derivative_that_was_only_meant_to_be_published_is_not_called_lost(
    place: Place, state: JobState, says: str
) -> None:
    derivative = _done(place, b"a.tif")
    with place.database.writing() as session:
        session.execute(sa.update(Job).values(state=state))
    assert "not there" not in place.ask(derivative).sentence
    derivative.unlink()
    assert place.ask(derivative).sentence.endswith(says)
    assert place.ask(f"{derivative}.json").sentence.endswith(says)


def test_a_scan_that_was_replaced_since(place: Place) -> None:
    _done(place, b"a.tif")
    assert place.ask("a.tif").sentence.endswith(" Coloured.")
    (place.root / "a.tif").write_bytes(b"other content")
    assert "The scan was changed or touched after that" in place.ask("a.tif").sentence
    (place.root / "a.tif").unlink()
    assert "The scan itself is not there any more" in place.ask("a.tif").sentence


def test_a_scan_on_a_share_that_is_away(place: Place) -> None:
    """Its mount point is empty, and that proves nothing."""
    place.job(b"nas/box/a.tif", state=JobState.SKIPPED, reason="Blank.")
    with place.database.writing() as session:
        identity.note_shares(session, "archive", [b"nas"])
    assert "not mounted" not in place.ask("nas/box/a.tif").sentence
    (place.root / "nas/box/a.tif").unlink()
    (place.root / "nas/box").rmdir()
    said = place.ask("nas/box/a.tif").sentence
    assert said.endswith(f" The scan lies on {place.root / 'nas'}, which is not mounted now.")


def test_master_and_derivative_are_looked_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow share answers each look in its own time."""
    derivative, looked, lstat = _done(place, b"a.tif"), list[bytes](), os.lstat
    monkeypatch.setattr("daemon.explain.os.lstat", lambda path: looked.append(path) or lstat(path))
    place.ask("a.tif")
    theirs = [os.fsencode(path) for path in looked if os.path.basename(os.fsdecode(path)) == "a.tif"]
    assert theirs == [bytes(place.root / "a.tif"), bytes(derivative)]


def test_a_twin_waits_for_its_elder(place: Place) -> None:
    elder, younger = place.job(b"a.tif"), place.job(b"b.tif")
    assert f"for job {elder} (a.tif, queued), which has the same bytes" in place.ask("b.tif").sentence
    assert "0 before it" in place.ask("a.tif").sentence
    with place.database.writing() as session:
        session.get_one(Job, elder).state = JobState.QUARANTINED
    assert place.ask("b.tif").job_id == younger and "0 before it" in place.ask("b.tif").sentence


def test_colouring_that_is_paused_for_training(place: Place) -> None:
    place.job(b"a.tif")
    with place.database.writing() as session:
        training_runs.begin(session, trigger="now", least_new=0, holder=training_runs.this_process())
    assert "0 before it" in place.ask("a.tif").sentence
    place.settings = place.settings.model_copy(update={"retrain_pauses_colouring": True})
    assert "for the training run that is under way" in place.ask("a.tif").sentence


def test_our_own_files_in_an_output(place: Place) -> None:
    job_id = place.job(b"a.tif")
    (place.output / "box").mkdir()
    for name, state in (("box/batch-report.json", "report"), ("box/batch-report.txt", "report"),
                        (f".photochrom-{job_id}-1-0123abcd.part", "temporary"),
                        (".photochrom-report-1-0123abcd.part", "temporary"),
                        (f".photochrom-{'9' * 40}-1-0123abcd.part", "temporary")):  # fmt: skip
        assert place.ask(place.output / name).state == "outside"  # it is not there
        (place.output / name).write_text('{"format": "photochrom batch report 1"}')
        assert place.ask(place.output / name).state == state
    assert f"job {job_id} (a.tif, queued)" in place.ask(place.output / f".photochrom-{job_id}-1-0123abcd.part").sentence
    (place.output / "box" / "batch-report.json").write_text("somebody else's")
    assert place.ask(place.output / "box" / "batch-report.txt").state == "outside"


def test_odd_names(place: Place) -> None:
    for name in (b"\xff\xfe.tif", b"a\nb.tif", b"x" * 251 + b".tif"):
        place.file(name, FileState.SETTLING, "It waits.")
        assert place.ask(name).state == "settling"


def test_any_spelling_of_a_path_is_the_path(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.file(b"deep/a.tif", FileState.SETTLING, "It waits.")
    (tmp_path / "by-link").symlink_to(place.root)
    monkeypatch.chdir(place.root / "deep")
    for path in (b"a.tif", b"./a.tif", b"../deep/a.tif", bytes(tmp_path / "by-link" / "deep" / "a.tif")):
        with place.database.reading() as session:
            assert why(session, place.settings, path).state == "settling", path


def test_a_root_reached_by_a_link(database: Database, tmp_path: Path) -> None:
    place = Place(database, tmp_path)
    (tmp_path / "link").symlink_to(place.root)
    real, place.root = place.root, tmp_path / "link"
    place.settings = Settings(roots=(RootSettings(path=place.root, output=place.output, name="archive"),))
    place.watch()
    place.file(b"a.tif", FileState.SETTLING, "It waits.")
    assert place.ask("a.tif").state == place.ask(real / "a.tif").state == "settling"
