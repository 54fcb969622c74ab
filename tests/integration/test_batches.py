"""Boxes are held back until they are complete, and reported on once their last scan has ended."""

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from daemon import batch_report
from daemon.batch_report import Reporter
from daemon.batches import Gate
from daemon.checksum_list import parse_manifest
from daemon.explain import why
from daemon.reconcile import Reconciler
from worker import files, jobs
from worker.db import Database, after
from worker.errors import ScanBroken
from worker.fixity import manifest_line
from worker.settings import RootSettings, Settings
from worker.strikes import Strikes
from worker.tables import FileState, Job, JobState, SourceFile

RULES = Strikes(failures=1, lost=1, retry_s=1, wait_s=1)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr("daemon.batches.LOOK_AGAIN_S", -1)
    for name in ("inbox", "output"):
        (tmp_path / name).mkdir()
    (tmp_path / "inbox" / "box 1" / "deep").mkdir(parents=True)
    return tmp_path / "inbox", tmp_path / "output"


class Box:
    """A root in batch mode with one box, looked at as the watcher does."""

    def __init__(self, database: Database, folders: tuple[Path, Path], settle_s: float = 0.0, **batch: object) -> None:
        self.inbox, self.output = folders
        self.box = self.inbox / "box 1"
        self.database = database
        self.settings = RootSettings(path=self.inbox, output=self.output, name="r", **batch)  # type: ignore[arg-type]
        self.gate = Gate(self.settings, settle_s)
        self.reconciler = Reconciler(database, "r", os.fsencode(self.inbox), 0.0, 3, self.gate.held)
        self.reporter = Reporter(database, self.settings)
        with database.writing() as session:
            files.watch_root(
                session, name="r", path=os.fsencode(self.inbox), output=os.fsencode(self.output), mode="scan",
                fs_type="ext4", identity={"source": "x"}, watcher="w", lease_s=60,
            )  # fmt: skip

    def put(self, name: str, content: bytes = b"") -> None:
        (self.inbox / name).write_bytes(content or os.fsencode(name))

    def scan(self) -> dict[str, str]:
        """The files' states after a full look."""
        self.reconciler.full_scan(lambda: True)
        self.reconciler.take_settled()
        return self.states()

    def states(self) -> dict[str, str]:
        with self.database.reading() as session:
            return {row.display_path: row.state for row in session.query(SourceFile)}

    def reason(self, name: str) -> str:
        with self.database.reading() as session:
            return session.query(SourceFile).filter_by(path=name.encode()).one().reason

    def colour(self, *, broken: str = "") -> None:
        """What a worker makes of the queue."""
        with self.database.reading() as session:
            queued = [job.id for job in session.query(Job).filter_by(state=JobState.QUEUED)]
        for job_id in queued:
            with self.database.writing() as session:
                job = jobs.claim(session, job_id, worker="w", device="cpu", host="h", model_version="v1", lease_s=20)
                assert job is not None
                if job.display_path == broken:
                    jobs.fail(session, job, ScanBroken("It does not decode."), RULES)
                else:
                    jobs.finish(session, job, JobState.DONE, reason="", output_path=job.path + b"~",
                                output_sha256=hashlib.sha256(job.path).hexdigest())  # fmt: skip


def test_a_marker_releases_a_box(database: Database, folders: tuple[Path, Path]) -> None:
    box = Box(database, folders, batch="marker")
    for name in ("loose.png", "box 1/a.png", "box 1/deep/b.png"):
        box.put(name)
    assert box.scan() == {"loose.png": "submitted", "box 1/a.png": "blocked", "box 1/deep/b.png": "blocked"}
    assert box.reason("box 1/a.png") == "Its batch waits for the file READY."
    box.put("box 1/READY")
    states = box.scan()
    assert states.pop("box 1/READY") == FileState.IGNORED
    assert set(states.values()) == {"submitted"}


def test_a_marker_releases_what_lies_deep_without_a_scan(database: Database, folders: tuple[Path, Path]) -> None:
    """The only event is of the folder in which the marker lies."""
    box = Box(database, folders, batch="marker")
    box.put("box 1/deep/b.png")
    assert box.scan() == {"box 1/deep/b.png": "blocked"}
    box.put("box 1/READY")
    box.reconciler.look_at(b"box 1", deep=False)
    for _ in range(2):
        box.reconciler.take_settled()
    assert box.states() == {"box 1/deep/b.png": "submitted", "box 1/READY": "ignored"}


def test_a_count_releases_a_box(database: Database, folders: tuple[Path, Path]) -> None:
    box = Box(database, folders, batch="count", batch_count=3)
    for name in ("box 1/a.png", "box 1/deep/b.tif", "box 1/notes.txt"):
        box.put(name)
    assert box.scan() == {"box 1/a.png": "blocked", "box 1/deep/b.tif": "blocked", "box 1/notes.txt": "ignored"}
    assert box.reason("box 1/a.png") == "Its batch has 2 of 3 pictures."
    box.put("box 1/c.jpg")
    assert sorted(box.scan().values()) == ["ignored", "submitted", "submitted", "submitted"]


def test_a_manifest_releases_a_box(database: Database, folders: tuple[Path, Path]) -> None:
    box = Box(database, folders, batch="manifest")
    for name in ("a.png", "deep/b.png", "wrong.png"):
        box.put(f"box 1/{name}")
    assert set(box.scan().values()) == {"blocked"}
    assert box.reason("box 1/a.png") == "Its batch waits for SHA256SUMS."
    listed = {
        name: hashlib.sha256(f"box 1/{name}".encode()).hexdigest() for name in ("a.png", "deep/b.png", "late.png")
    }
    lines = [f"{sha256}  ./{name}" for name, sha256 in listed.items()] + [f"{'0' * 64} *wrong.png"]
    box.put("box 1/SHA256SUMS", "\n".join(lines).encode())
    states = box.scan()
    assert {states[f"box 1/{name}"] for name in ("a.png", "deep/b.png", "wrong.png")} == {"blocked"}
    assert "missing: late.png; not as listed: wrong.png" in box.reason("box 1/a.png")
    box.put("box 1/late.png")
    box.put("box 1/SHA256SUMS", "\n".join(lines[:-1]).encode())
    states = box.scan()
    assert states.pop("box 1/wrong.png") == "blocked"
    assert "not in SHA256SUMS" in box.reason("box 1/wrong.png")
    assert states.pop("box 1/SHA256SUMS") == "ignored"
    assert set(states.values()) == {"submitted"}


def test_why_of_a_box_names_all_that_is_missing_or_wrong(database: Database, folders: tuple[Path, Path]) -> None:
    box = Box(database, folders, batch="manifest")
    missing, wrong = ([f"{kind} {number}.png" for number in range(8)] for kind in ("late", "wrong"))
    for name in wrong:
        box.put(f"box 1/{name}")
    box.put("box 1/SHA256SUMS", "".join(f"{'0' * 64}  {name}\n" for name in missing + wrong).encode())
    box.scan()
    told = box.reason("box 1/wrong 0.png")
    assert "late 4.png and 3 more; not as listed: wrong 0.png" in told
    assert told.endswith("wrong 4.png and 3 more. `photochrom why` of its folder names all.")

    def why_box() -> str:
        with database.reading() as session:
            return why(session, Settings(roots=(box.settings,)), os.fsencode(box.box)).sentence

    assert why_box().endswith(f"says: missing: {', '.join(missing)}; not as listed: {', '.join(wrong)}.")
    (box.box / missing[0]).symlink_to(wrong[0])
    assert f"missing: {', '.join(missing[1:])}; unreadable: {missing[0]}; not as listed: " in why_box()
    (box.box / "SHA256SUMS").unlink()
    assert why_box().endswith("waits. Its batch waits for SHA256SUMS.")
    box.put("box 1/SHA256SUMS", "".join(f"{hashlib.sha256(f'box 1/{name}'.encode()).hexdigest()}  {name}\n"
                                        for name in wrong).encode())  # fmt: skip
    assert "and complete" in why_box()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_manifests_are_read_as_sha256sum_writes_them(tmp_path: Path) -> None:
    names = [b"plain.png", b"two  blanks.png", b"line\nend.png", b"back\\slash.png", b"back\\nslash.png", b"\xff.png"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    done = subprocess.run([b"sha256sum", *names], cwd=tmp_path, capture_output=True, check=True)
    lines = (manifest_line(name, hashlib.sha256(name).hexdigest()) for name in names)
    assert b"".join(lines) == done.stdout
    assert parse_manifest(done.stdout) == {name: hashlib.sha256(name).hexdigest() for name in names}


ONE, TWO = b"1a" * 32, b"2b" * 32


@pytest.mark.parametrize(
    "line",
    [b"nonsense", ONE + b" a", ONE + b"  ../a", ONE + b"  /a", ONE + b"  a/../b", b"00  a", b"zz" * 32 + b"  a",
     ONE + b"  "],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse_manifest(line)


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"line 2 says another checksum of a\.png"):
        parse_manifest(ONE + b"  a.png\n" + TWO + b"  ./a.png\n")


def test_what_other_programs_write_is_read_too() -> None:
    lines = (b"\xef\xbb\xbf# of box 1", b"", ONE.upper() + b" *a.png", ONE + b"  a.png", TWO + b"  ./deep//./b.png")
    listed = {b"a.png": ONE.decode(), b"deep/b.png": TWO.decode()}
    assert parse_manifest(b"\r\n".join(lines)) == listed
    assert parse_manifest(ONE + b"  a\rb.png\n") == {b"a\rb.png": ONE.decode()}, "older ones do not escape it"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_a_manifest_that_lists_itself_releases_its_box(database: Database, folders: tuple[Path, Path]) -> None:
    """The shell makes the file before find finds all that is there."""
    box = Box(database, folders, batch="manifest")
    box.put("box 1/a.png")
    subprocess.run("find . -type f -exec sha256sum {} + > SHA256SUMS", shell=True, cwd=box.box, check=True)
    assert b"SHA256SUMS" in (box.box / "SHA256SUMS").read_bytes()
    assert box.scan() == {"box 1/a.png": "submitted", "box 1/SHA256SUMS": "ignored"}


def test_one_report_when_the_last_scan_has_ended(database: Database, folders: tuple[Path, Path]) -> None:
    box = Box(database, folders, batch="marker")
    for name in ("box 1/a.png", "box 1/deep/b.png", "box 1/READY"):
        box.put(name)
    box.scan()
    assert box.reporter.report() == []
    box.colour(broken="box 1/deep/b.png")
    assert box.reporter.report() == [b"box 1"]
    assert box.reporter.report() == []
    assert Reporter(database, box.settings).report() == [], "a restart writes nothing again"
    told = json.loads((box.output / "box 1" / "batch-report.json").read_text())
    assert (told["files"], told["counts"], told["models"]) == (2, {"done": 1, "quarantined": 1}, ["v1"])
    assert [failure["path"] for failure in told["failures"]] == ["box 1/deep/b.png"]
    assert told["derivatives"][0]["source_sha256"] == hashlib.sha256(b"box 1/a.png").hexdigest()
    text = (box.output / "box 1" / "batch-report.txt").read_text()
    assert "quarantined: box 1/deep/b.png: It does not decode." in text
    assert text.splitlines()[-1] == f"{hashlib.sha256(b'box 1/a.png').hexdigest()}  box 1/a.png~"

    with database.writing() as session:
        jobs.retry(session, told["failures"][0]["job"])
    assert box.reporter.report() == []
    box.colour()
    assert box.reporter.report() == [b"box 1"]
    told = json.loads((box.output / "box 1" / "batch-report.json").read_text())
    assert told["counts"] == {"done": 2}


def test_a_picture_too_many_holds_up_no_report(database: Database, folders: tuple[Path, Path]) -> None:
    box = Box(database, folders, batch="manifest")
    for name in ("box 1/a.png", "box 1/extra.png"):
        box.put(name)
    box.put("box 1/SHA256SUMS", f"{hashlib.sha256(b'box 1/a.png').hexdigest()}  a.png\n".encode())
    box.scan()
    box.colour()
    assert box.reporter.report() == [b"box 1"]
    told = json.loads((box.output / "box 1" / "batch-report.json").read_text())
    assert told["counts"] == {"done": 1} and [left["path"] for left in told["not_taken"]] == ["box 1/extra.png"]
    text = (box.output / "box 1" / "batch-report.txt").read_text()
    assert "not taken: box 1/extra.png: It is not in SHA256SUMS of its batch." in text
    box.put("box 1/late.png")
    box.scan()
    with database.writing() as session:
        jobs.do_again(session, session.scalars(sa.select(Job)).one())
    box.colour()
    assert box.reporter.report() == [b"box 1"]
    told = json.loads((box.output / "box 1" / "batch-report.json").read_text())
    assert [left["path"] for left in told["not_taken"]] == ["box 1/extra.png", "box 1/late.png"]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_reads_a_report_with_names_of_any_bytes(database: Database, folders: tuple[Path, Path]) -> None:
    box = Box(database, folders, batch="marker")
    names = [b"a\nb.png", b"back\\slash.png", b"\xff.png", b"plain.png"]
    for name in (*names, b"READY"):
        box.put(os.fsdecode(b"box 1/" + name))
    box.scan()
    box.colour()
    box.reporter.report()
    for name in names:
        box.output.joinpath(os.fsdecode(b"box 1/" + name + b"~")).write_bytes(b"box 1/" + name)
    check = ["sha256sum", "--check", "--quiet", "box 1/batch-report.txt"]
    checked = subprocess.run(check, cwd=box.output, capture_output=True, check=False)
    assert checked.returncode == 0, checked


@pytest.mark.parametrize("gone", [["box 1/a.png"], ["box 1/a.png", "box 1/deep/b.png"]])
def test_originals_that_are_taken_away_stay_in_the_report(
    database: Database, folders: tuple[Path, Path], gone: list[str]
) -> None:
    box = Box(database, folders, batch="marker")
    for name in ("box 1/a.png", "box 1/deep/b.png", "box 1/READY"):
        box.put(name)
    box.scan()
    box.colour()
    assert box.reporter.report() == [b"box 1"]
    files_of_it = [path.read_bytes() for path in sorted((box.output / "box 1").iterdir())]
    for name in gone:
        (box.inbox / name).unlink()
    box.scan()
    assert Reporter(database, box.settings).report() == [], "after a restart"
    assert [path.read_bytes() for path in sorted((box.output / "box 1").iterdir())] == files_of_it
    box.put("box 1/late.png")
    box.scan()
    box.colour()
    assert Reporter(database, box.settings).report() == [b"box 1"], "there is something new to tell"


def test_a_box_that_was_taken_away_is_not_asked_about_for_ever(
    database: Database, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(database, folders, batch="marker")
    for name in ("box 1/a.png", "box 1/READY"):
        box.put(name)
    box.scan()
    box.colour()
    box.reporter.report()
    (box.inbox / "box 1/a.png").unlink()
    box.scan()
    asked, real = [], batch_report._is_under_way
    monkeypatch.setattr(batch_report, "_is_under_way", lambda *of: asked.append(of[2]) or real(*of))
    reporter = Reporter(database, box.settings)
    for _ in range(3):
        assert reporter.report() == []
    assert asked == [b"box 1"], "once after a restart"
    box.put("box 1/late.png")
    box.scan()
    assert reporter.report() == []
    box.colour()
    assert reporter.report() == [b"box 1"], "an event brings it back"


@pytest.mark.parametrize("collected", [False, True])
def test_a_box_that_is_taken_away_before_its_report_still_gets_it(
    database: Database, folders: tuple[Path, Path], collected: bool
) -> None:
    box = Box(database, folders, batch="marker")
    for name in ("box 1/a.png", "box 1/deep/b.png", "box 1/READY"):
        box.put(name)
    box.scan()
    box.colour(broken="box 1/deep/b.png")
    (box.output / "box 1").mkdir()
    if not collected:
        (box.output / "box 1" / "a.png~").touch()
    shutil.rmtree(box.box)
    box.scan()
    if collected:
        assert box.reporter.report() == [], "its derivatives were taken away too"
        assert list((box.output / "box 1").iterdir()) == []
        return
    assert box.reporter.report() == [b"box 1"]
    told = json.loads((box.output / "box 1" / "batch-report.json").read_text())
    assert told["counts"] == {"done": 1, "quarantined": 1}
    assert Reporter(database, box.settings).report() == [], "after a restart"


def test_a_scan_that_goes_before_its_turn_is_a_failure_of_its_batch(
    database: Database, folders: tuple[Path, Path]
) -> None:
    box = Box(database, folders, batch="marker")
    for name in ("box 1/a.png", "box 1/earlier.png", "box 1/READY"):
        box.put(name)
    box.scan()
    box.colour()
    (box.box / "earlier.png").unlink()
    box.scan()
    with database.writing() as session:
        session.execute(sa.update(Job).values(created_at=after(-60), finished_at=after(-50)))
    (box.box / "a.png").unlink()
    for name in ("box 1/b.png", "box 1/c.png"):
        box.put(name)
    box.scan()
    (box.box / "c.png").unlink()
    box.scan()
    assert box.reporter.report() == [], "a worker has not missed it yet"
    box.colour(broken="box 1/c.png")
    assert box.reporter.report() == [b"box 1"]
    told = json.loads((box.output / "box 1" / "batch-report.json").read_text())
    assert [failure["path"] for failure in told["failures"]] == ["box 1/c.png"]
    assert [item["source"] for item in told["derivatives"]] == ["box 1/b.png"], "not those of another delivery"


def test_a_report_never_replaces_a_foreign_file(database: Database, folders: tuple[Path, Path]) -> None:
    box = Box(database, folders, batch="marker")
    (box.output / "box 1").mkdir()
    (box.output / "box 1" / "batch-report.json").write_text("mine")
    for name in ("box 1/a.png", "box 1/READY"):
        box.put(name)
    box.scan()
    box.colour()
    assert box.reporter.report() == []
    assert (box.output / "box 1" / "batch-report.json").read_text() == "mine"


def test_a_report_that_could_not_be_written_is_written_later(
    database: Database, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At first neither of its two files, then the second one only."""
    monkeypatch.setattr("daemon.batch_report.RETRY_S", -1)
    box = Box(database, folders, batch="marker")
    for name in ("box 1/a.png", "box 1/READY"):
        box.put(name)
    box.scan()
    box.colour()
    real = batch_report.write_all

    def write_all(descriptor: int, content: bytes) -> None:
        if ("json" if content.startswith(b"{") else "txt") in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor, content)

    monkeypatch.setattr(batch_report, "write_all", write_all)
    folder = box.output / "box 1"
    for full in ({"json"}, {"json"}, {"txt"}, {"txt"}):
        assert box.reporter.report() == []
        assert {path.name for path in folder.iterdir()} == ({"batch-report.json"} if "txt" in full else set())
    assert [record.message for record in caplog.records] == ["report_not_written"], "the same is told once"
    full = set()
    assert box.reporter.report() == [b"box 1"]
    assert {path.name for path in folder.iterdir()} == {"batch-report.json", "batch-report.txt"}
    assert box.reporter.report() == []


def test_what_a_killed_watcher_left_of_a_report_goes(database: Database, folders: tuple[Path, Path]) -> None:
    box = Box(database, folders, batch="marker")
    for name in ("box 1/a.png", "box 1/READY"):
        box.put(name)
    box.scan()
    box.colour()
    (box.output / "box 1").mkdir()
    for owner in ("report", "17"):
        (box.output / "box 1" / f".photochrom-{owner}-1-deadbeef.part").write_text("{")
    assert box.reporter.report() == [b"box 1"]
    left = {".photochrom-17-1-deadbeef.part", "batch-report.json", "batch-report.txt"}
    assert {path.name for path in (box.output / "box 1").iterdir()} == left


def test_a_report_is_written_when_a_foreign_file_is_out_of_its_way(
    database: Database, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(database, folders, batch="marker")
    (box.output / "box 1").mkdir()
    (box.output / "box 1" / "batch-report.txt").write_text("mine")
    for name in ("box 1/a.png", "box 1/READY"):
        box.put(name)
    box.scan()
    box.colour()
    assert box.reporter.report() == []
    assert (box.output / "box 1" / "batch-report.txt").read_text() == "mine"
    (box.output / "box 1" / "batch-report.txt").unlink()
    assert box.reporter.report() == [], "each try reads the whole batch: not at every round"
    monkeypatch.setattr(batch_report.time, "monotonic", lambda: 1e9)
    assert box.reporter.report() == [b"box 1"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes devices")
def test_a_device_in_a_manifest_is_not_read(
    database: Database, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(database, folders, batch="manifest")
    os.mknod(box.box / "z.png", 0o644 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    monkeypatch.setattr("daemon.intake.BLOCK_BYTES", 1)
    asked = iter(range(100))
    box.put("box 1/a.png")
    box.put("box 1/SHA256SUMS", f"{'0' * 64}  z.png\n".encode())
    box.reconciler.full_scan(lambda: next(asked, None) is not None)
    assert next(asked, None) is not None, "it is read without end"
    assert "unreadable: z.png" in box.reason("box 1/a.png")
