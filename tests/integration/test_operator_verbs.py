"""quarantine, health, selftest, verify --all: what an operator asks and decides."""

import contextlib
import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from daemon.broker import EmbeddedBroker
from daemon.cli import main
from worker import files, jobs, training_runs
from worker.answers import NoAnswer
from worker.db import Database, after
from worker.errors import ScanBroken
from worker.files import Stamp
from worker.strikes import Strikes
from worker.tables import FileState, Job, JobEvent, JobState, Root, RootState, SourceFile

RULES = Strikes(failures=1, lost=1, retry_s=1, wait_s=1)


@pytest.fixture
def root(tmp_path: Path, state_database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A watched folder in the record, with an output beside it."""
    inbox, output = tmp_path / "inbox", tmp_path / "output"
    inbox.mkdir()
    output.mkdir()
    monkeypatch.setenv("PHOTOCHROM_INBOX", str(inbox))
    monkeypatch.setenv("PHOTOCHROM_OUTPUT", str(output))
    with state_database.writing() as session:
        files.watch_root(
            session, name=str(inbox), path=os.fsencode(inbox), output=os.fsencode(output), mode="scan", fs_type="ext4",
            identity={"source": "x"}, watcher="w", lease_s=60,
        )  # fmt: skip
        files.scanned(session, str(inbox), seconds=1, files=1)
    return inbox


def submitted(database: Database, root: Path, name: str, content: bytes = b"scan") -> int:
    """A file in the folder and its job."""
    (root / name).write_bytes(content)
    with database.writing() as session:
        files.found(session, str(root), os.fsencode(name), Stamp.of((root / name).stat()))
        session.flush()
        row = files.by_path(session, str(root), os.fsencode(name))
        assert row is not None
        job, _ = jobs.submit(session, row, hashlib.sha256(content).hexdigest(), priority=3)
        files.put(session, row.id, FileState.SUBMITTED, "", sha256=job.source_sha256, job_id=job.id)
        return job.id


def claimed(database: Database, job_id: int) -> Job:
    with database.writing() as session:
        job = jobs.claim(session, job_id, worker="w:1:a", device="cpu", host="here", model_version="v1", lease_s=20)
    assert job is not None
    return job


def quarantined(database: Database, root: Path, name: str) -> int:
    job_id = submitted(database, root, name)
    job = claimed(database, job_id)
    with database.writing() as session:
        jobs.fail(session, job, ScanBroken("It does not decode."), RULES, "Traceback: line 1")
    return job_id


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def state_of(database: Database, job_id: int) -> JobState:
    with database.reading() as session:
        return session.get_one(Job, job_id).state


def test_what_cannot_be_read_is_counted_and_named(root: Path, state_database: Database) -> None:
    assert json.loads(ask("status", "--json").output)["unreadable"] == {"count": 0, "first": []}
    with state_database.writing() as session:
        files.block(session, str(root), b"box/held.png", "It waits for READY.")
        for number in range(5):
            files.block(session, str(root), b"locked %d" % number, "It cannot be listed (EACCES: Permission denied).")
        files.block(session, "another host's", b"locked", "It cannot be listed (EACCES: Permission denied).")
    told = json.loads(ask("status", "--json").output)
    assert (told["files"], told["unreadable"]["count"]) == ({"blocked": 7}, 6)
    text = ask("status").output
    assert f"BLOCKED {root}/locked 0: It cannot be listed (EACCES" in text and "BLOCKED 3 more" in text
    (sign,) = [sign for sign in json.loads(ask("health", "--json").output)["signs"] if sign["what"] == "sources"]
    assert (sign["ok"], sign["value"]) == (False, 5) and "EACCES" in sign["says"] and "4 more" in sign["says"]


def test_quarantine_lists_and_shows_the_evidence(root: Path, state_database: Database) -> None:
    assert "Nothing" in ask("quarantine", "list").output
    job_id = quarantined(state_database, root, "a.png")
    (listed,) = json.loads(ask("quarantine", "list", "--json").output)
    assert (listed["id"], listed["path"], listed["error"]) == (job_id, "a.png", "broken")
    shown = json.loads(ask("quarantine", "show", str(job_id), "--json").output)
    assert shown["message"] == "It does not decode."
    assert shown["traceback_tail"] == "Traceback: line 1"
    assert (shown["host"], shown["model_version"], shown["attempts"]) == ("here", "v1", 1)
    assert shown["now"]["sha256"] == shown["source_sha256"] == hashlib.sha256(b"scan").hexdigest()
    assert shown["now"]["inode"] == shown["recorded"]["inode"]
    assert [event["state"] for event in shown["events"]] == ["queued", "running", "quarantined"]
    (root / "a.png").unlink()
    assert "ENOENT" in ask("quarantine", "show", str(job_id)).output
    assert ask("quarantine", "show", "999").exit_code == 1


def test_evidence_on_what_is_no_file_any_more(root: Path, state_database: Database) -> None:
    """A folder or a pipe in its place is told; nothing is read from it."""
    job_id = quarantined(state_database, root, "a.png")
    (root / "a.png").unlink()
    for make in (Path.mkdir, os.mkfifo):
        make(root / "a.png")
        asked = ask("quarantine", "show", str(job_id), "--json")
        now = json.loads(asked.stdout)["now"]
        assert asked.exit_code == 0 and "no regular file" in now["error"] and "sha256" not in now
        shutil.rmtree(root / "a.png") if (root / "a.png").is_dir() else (root / "a.png").unlink()


def test_evidence_is_read_without_a_transaction(
    root: Path, state_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = quarantined(state_database, root, "a.png")
    opened: list[bool] = []

    def look(*_: object) -> dict[str, object]:
        opened.append(bool(reading))
        return {}

    reading: list[object] = []
    monkeypatch.setattr("daemon.quarantine._as_it_is_now", look)
    before = Database.reading

    @contextlib.contextmanager
    def noted(self: Database) -> Iterator[object]:
        with before(self) as session:
            reading.append(session)
            try:
                yield session
            finally:
                reading.pop()

    monkeypatch.setattr(Database, "reading", noted)
    assert ask("quarantine", "show", str(job_id)).exit_code == 0
    assert opened == [False]


def test_quarantine_tells_how_the_worker_ended(root: Path, state_database: Database) -> None:
    job_id = submitted(state_database, root, "a.png")
    claimed(state_database, job_id)
    with state_database.writing() as session:
        how = "Worker exited prematurely: signal 9 (SIGKILL) Job: 4"
        jobs.expire(session, RULES, worker="w:", job_id=job_id, how=how)
    shown = json.loads(ask("quarantine", "show", str(job_id), "--json").output)
    assert (shown["state"], shown["error"], shown["last_end"]) == ("quarantined", "worker_lost", "signal 9 (SIGKILL)")


def test_retry_and_dismiss(root: Path, state_database: Database) -> None:
    first, second = (quarantined(state_database, root, name) for name in ("a.png", "b.png"))
    assert ask("quarantine", "retry").exit_code == 2
    assert ask("quarantine", "retry", str(first)).exit_code == 0
    assert state_of(state_database, first) is JobState.QUEUED
    assert ask("quarantine", "dismiss", "--all").exit_code == 0
    assert state_of(state_database, second) is JobState.SKIPPED
    again = ask("quarantine", "dismiss", str(first), str(second))
    assert again.exit_code == 1
    assert ask("retry", str(second)).exit_code == 0
    assert state_of(state_database, second) is JobState.QUEUED


def test_evidence_is_told_in_lines_that_people_read(root: Path, state_database: Database) -> None:
    shown = ask("quarantine", "show", str(quarantined(state_database, root, "a.png"))).output
    assert "datetime" not in shown and "{" not in shown and "<" not in shown
    assert "\nlast_end: -\n" in shown and "\nnow:\n  path: " in shown
    assert " UTC  quarantined, claim 1 by w:1:a  It does not decode.\n" in shown


def test_what_was_dismissed_is_told_with_the_time_of_that(root: Path, state_database: Database) -> None:
    job_id = quarantined(state_database, root, "a.png")
    with state_database.writing() as session:
        session.get_one(Job, job_id).finished_at = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert ask("quarantine", "dismiss", str(job_id)).exit_code == 0
    told = ask("why", str(root / "a.png")).output
    assert "Dismissed by an operator." in told and "2020" not in told


def health(*wrong: str) -> None:
    asked = ask("health", "--json")
    told = json.loads(asked.stdout)
    bad = {sign["what"].split()[0] for sign in told["signs"] if not sign["ok"]}
    assert bad == {"broker", *wrong}, told  # no broker runs here
    assert (asked.exit_code, told["healthy"]) == (13, False)


def test_health_looks_end_to_end(root: Path, state_database: Database) -> None:
    health()
    job_id = submitted(state_database, root, "a.png")
    health()

    def change(kind: type[Job | Root], **values: object) -> None:
        with state_database.writing() as session:
            for name, value in values.items():
                setattr(session.query(kind).one(), name, value)

    change(Job, created_at=after(-1000))
    health("work")
    change(Job, not_before=after(60))
    health()
    change(Job, not_before=None)
    claimed(state_database, job_id)
    health()
    change(Job, lease_until=after(-100))
    health("claims")
    change(Job, lease_until=after(20))
    change(Root, scanned_at=after(-1000))
    health("root")
    change(Root, scanned_at=after(0), watcher_until=after(-1))
    health("root")
    change(Root, scanned_at=after(7200), watcher_until=after(7200))  # its watcher died, then the clock was put back
    health("root")


@pytest.fixture
def broker(state_dir: Path) -> Iterator[EmbeddedBroker]:
    embedded = EmbeddedBroker(state_dir)
    embedded.start()
    yield embedded
    embedded.stop()


def test_health_is_well_with_a_broker_and_not_without(
    root: Path, state_database: Database, broker: EmbeddedBroker
) -> None:
    asked = ask("health")
    assert (asked.exit_code, "BAD" in asked.output) == (0, False), asked.output
    assert json.loads(ask("health", "--json").stdout)["healthy"] is True
    broker.stop()
    asked = ask("health")
    assert asked.exit_code == 13 and "BAD  broker: No broker answers at" in asked.output
    assert asked.output.count("BAD") == 1


@pytest.mark.parametrize("full", ["state", "output"])
def test_health_knows_a_full_disk(
    root: Path, state_database: Database, full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {tmp_path / full: 3 << 20}
    usage = SimpleNamespace(disk_usage=lambda folder: SimpleNamespace(free=free.get(folder, 1 << 40)))
    monkeypatch.setattr("daemon.health.shutil", usage)
    health("disk")
    assert f"BAD  disk {tmp_path / full}: 3 MiB free. Free some space." in ask("health").output
    free.clear()
    health()


def test_health_knows_a_first_scan_that_does_not_go_on(root: Path, state_database: Database) -> None:
    """It hangs, or is begun again and again; one that comes to ever more files is well, however long it takes."""

    def recorded(seconds_ago: float) -> None:
        with state_database.writing() as session:
            session.query(SourceFile).update({"since": after(-seconds_ago)})

    with state_database.writing() as session:
        session.query(Root).one().scanned_at = None
    health()
    submitted(state_database, root, "a.png")
    recorded(1000)
    health("root")
    assert "its first scan has not ended, and for 10" in ask("health").output
    recorded(100)
    health()
    assert "its first scan is under way" in ask("health").output


def test_health_knows_a_folder_that_nobody_has_ever_watched(
    root: Path, state_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "another").mkdir()
    monkeypatch.setenv("PHOTOCHROM_INBOX", str(tmp_path / "another"))
    health("root")
    assert f"root {tmp_path}/another: nobody has ever watched it" in ask("health").output


def test_a_folder_that_is_no_setting_any_more_does_not_make_ill(
    root: Path, state_database: Database, tmp_path: Path
) -> None:
    with state_database.writing() as session:
        files.watch_root(
            session, name="former", path=b"/former", output=b"/out", mode="scan", fs_type="ext4",
            identity={"source": "x"}, watcher="w", lease_s=-1,
        )  # fmt: skip
    health()
    assert "ok   root /former: in the record, but not in these settings" in ask("health").output


@pytest.mark.parametrize("state", [RootState.ONLINE, RootState.OFFLINE])
def test_work_of_a_folder_that_is_held_up_is_no_worker_s_fault(
    root: Path, state_database: Database, state: RootState
) -> None:
    job_id = submitted(state_database, root, "a.png")
    with state_database.writing() as session:
        session.get_one(Job, job_id).created_at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1000)
        folder = session.query(Root).one()
        folder.state, folder.reason = state, "Paused: free some space; it goes on by itself."
    health("root")
    told = ask("health").output
    assert "Paused: free some space" in told and "No worker takes it" not in told


def test_work_that_waits_for_training_is_no_worker_s_fault(
    root: Path, state_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submitted(state_database, root, "a.png")
    with state_database.writing() as session:
        session.get_one(Job, job_id).created_at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1000)
        training_runs.begin(session, trigger="now", least_new=0, holder=training_runs.this_process())
    health("work")
    monkeypatch.setenv("PHOTOCHROM_RETRAIN_PAUSES_COLOURING", "true")
    health()
    assert "waits for the training run" in ask("health").output


def test_a_scan_that_is_sent_back_waits_since_then(root: Path, state_database: Database) -> None:
    """It came a week ago, and nothing was coloured since: no worker is to blame in the moment after."""
    job_id = quarantined(state_database, root, "a.png")
    with state_database.writing() as session:
        session.execute(sa.update(Job).values(created_at=after(-7 * 86400)))
        session.execute(sa.update(JobEvent).values(at=after(-86400)))
    assert ask("quarantine", "retry", str(job_id)).exit_code == 0
    work = next(sign for sign in json.loads(ask("health", "--json").stdout)["signs"] if sign["what"] == "work")
    assert work["ok"] and work["value"] < 60
    with state_database.reading() as session:
        came = session.get_one(Job, job_id).created_at
    assert f"{came:%Y-%m-%d}" not in ask("why", str(root / "a.png")).output


def test_health_asks_every_broker_that_it_calls_well(
    root: Path, state_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOCHROM_BROKER_URL", "amqp://x.invalid")
    health()
    assert "amqp://x.invalid is no Redis or Valkey" in ask("health").output


def test_a_database_that_somebody_keeps_locked_is_not_well(
    root: Path, state_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.health.LOCKED_S", 0.1)
    health()
    with state_database.writing() as session:
        session.query(Root).all()  # its transaction begins here
        health("database")
        assert "another process has kept it locked" in ask("health").output
    health()


def test_health_without_a_record(tmp_path: Path, state_dir: Path) -> None:
    asked = ask("health")
    assert asked.exit_code == 13
    assert "BAD  database" in asked.output


def test_selftest_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "a.png").write_bytes(b"1")
    asked = ask("selftest", "--root", str(tmp_path / "share"), "--json")
    assert asked.exit_code == 0, asked.output
    told = {trial["what"]: trial["works"] for trial in json.loads(asked.stdout)}
    assert all(told[name] for name in ("write, rename, read", "replaced file", "mode", "clock"))
    assert [path.name for path in (tmp_path / "share").iterdir()] == ["a.png"]
    assert ask("selftest", "--root", str(tmp_path / "none")).exit_code == 6


def test_selftest_tells_the_mode_that_the_settings_give_however_the_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "share" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("share")
    text = f'[[roots]]\npath = "{tmp_path}/share"\noutput = "{tmp_path}/out"\nmode = "scan"\n'
    (tmp_path / "photochrom.toml").write_text(text)
    for name in ("share", "link", "share/sub"):
        assert "mode: scan" in ask("selftest", "--root", name).output


def test_shares_that_do_not_answer_hold_up_neither_verify_nor_selftest(
    root: Path, state_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(state_database, root, "a.png")

    def silent(folder: Path | bytes, *_: object) -> object:
        raise NoAnswer(os.fsencode(folder), 5)

    monkeypatch.setattr("worker.fixity.ask", silent)
    monkeypatch.setattr("daemon.selftest.ask", silent)
    asked = ask("verify", "--all")
    assert asked.exit_code == 6 and asked.output.count("does not answer") == 2
    asked = ask("selftest", "--root", str(root))
    assert asked.exit_code == 6 and "ETIMEDOUT: no answer for 5 s" in asked.output


def test_verify_all(root: Path, state_database: Database) -> None:
    output = root.parent / "output"
    for number, name in enumerate(("good.png", "touched.png", "gone.png", "lost.png")):
        job = claimed(state_database, submitted(state_database, root, name, b"scan %d" % number))
        (output / name).write_bytes(b"colour %d" % number)
        with state_database.writing() as session:
            jobs.finish(session, job, JobState.DONE, reason="", output_path=os.fsencode(name),
                        output_sha256=hashlib.sha256(b"colour %d" % number).hexdigest())  # fmt: skip
    assert ask("verify", "--all").exit_code == 0
    (root / "touched.png").write_bytes(b"other")
    (root / "gone.png").unlink()
    (output / "lost.png").unlink()
    asked = ask("verify", "--all", "--json", "--manifest", str(root.parent / "SHA256SUMS"))
    told = json.loads(asked.stdout)
    assert asked.exit_code == 1
    assert told["counts"] == {"original ok": 2, "original changed": 1, "original missing": 1,
                              "derivative ok": 3, "derivative missing": 1}  # fmt: skip
    assert {(item["what"], item["verdict"]) for item in told["findings"]} == {
        ("original", "changed"), ("original", "missing"), ("derivative", "missing")}  # fmt: skip
    lines = (root.parent / "SHA256SUMS").read_text().splitlines()
    assert lines[0] == f"{hashlib.sha256(b'scan 0').hexdigest()}  {root}/good.png"
    assert time.time() - (root / "good.png").stat().st_mtime < 100
    with state_database.reading() as session:
        assert session.query(SourceFile).count() == 4


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_manifest_of_verify_all_is_what_sha256sum_writes(
    root: Path, state_database: Database, tmp_path: Path
) -> None:
    names = [b"a\nb.png", b"back\\slash.png", b"back\\nslash.png", b"end\r", b"\xff.png", b"two  blanks.png"]
    for name in names:
        submitted(state_database, root, os.fsdecode(name), b"scan " + name)
    before = subprocess.run(["sha256sum", *(root / os.fsdecode(name) for name in names)], capture_output=True)
    now = tmp_path / "now.sha256"
    assert ask("verify", "--all", "--manifest", str(now)).exit_code == 0
    assert now.read_bytes() == before.stdout
    assert subprocess.run(["sha256sum", "--check", "--quiet", now]).returncode == 0


def done(database: Database, root: Path, name: str, content: bytes = b"colour") -> int:
    """A scan with its derivative; the job's number."""
    job = claimed(database, submitted(database, root, name, f"scan {name}".encode()))
    derivative = root.parent / "output" / name
    derivative.parent.mkdir(exist_ok=True)
    derivative.write_bytes(content)
    with database.writing() as session:
        jobs.finish(session, job, JobState.DONE, reason="", output_path=os.fsencode(name),
                    output_sha256=hashlib.sha256(content).hexdigest(), display_output_path=str(derivative))  # fmt: skip
    return job.id


def test_a_manifest_that_cannot_be_written_is_one_sentence(root: Path, state_database: Database) -> None:
    done(state_database, root, "a.png")
    for path in (root.parent / "no" / "such", root.parent, Path("/dev/full")):
        asked = ask("verify", "--all", "--manifest", str(path))
        assert asked.exit_code == 1 and asked.stderr.startswith(f"photochrom: {path} cannot be written (E")


def test_a_manifest_is_never_written_into_a_watched_folder(root: Path, state_database: Database) -> None:
    """Least of all over an original."""
    done(state_database, root, "a.png")
    asked = ask("verify", "--all", "--manifest", str(root / "a.png"))
    assert asked.exit_code == 1 and f"lies in the watched folder {root}" in asked.stderr
    assert (root / "a.png").read_bytes() == b"scan a.png"


def test_what_verify_would_not_heed_is_wrong_usage(root: Path, state_database: Database) -> None:
    assert ask("verify", "a.tif", "b.tif", "--all").exit_code == 2
    assert ask("verify", "a.tif", "b.tif", "--manifest", str(root.parent / "sums")).exit_code == 2


@pytest.mark.parametrize("there", [False, True])
def test_verify_all_where_the_output_is_away_says_so_once(
    root: Path, state_database: Database, tmp_path: Path, there: bool
) -> None:
    for number in range(3):
        done(state_database, root, f"{number}.png")
    (tmp_path / "output").rename(tmp_path / "elsewhere")
    if there:  # the empty folder that it was mounted on
        (tmp_path / "output").mkdir()
    asked = ask("verify", "--all")
    assert asked.exit_code == 7
    away, counts = asked.output.splitlines()
    assert away.startswith(f"offline: the output folder {tmp_path}/output is not there, or holds none")
    assert "3 derivatives were not looked at" in away
    assert counts == "3 derivative offline, 3 original ok"
    told = json.loads(ask("verify", "--all", "--json").stdout)
    (finding,) = told["findings"]
    assert (finding["of"], finding["files"]) == ("derivative", 3)
    with state_database.writing() as session:
        session.query(Root).one().identity = json.dumps({"inode": root.stat().st_ino})
    root.rename(tmp_path / "no inbox")
    assert ask("verify", "--all").exit_code == 6
    (tmp_path / "no inbox").rename(root)
    (root / "0.png").write_bytes(b"changed")
    assert ask("verify", "--all").exit_code == 1


def test_what_was_taken_away_on_purpose_is_missed_until_a_person_says_so(root: Path, state_database: Database) -> None:
    (root / "box").mkdir()
    (root.parent / "output" / "box").mkdir()
    names = ["a.png", "box/b.png", "box0.png", "d.png"]
    for name in names:
        done(state_database, root, name)
    for name in names[:3]:
        (root / name).unlink()
    assert ask("roots", "let-go", str(root / "box")).exit_code == 1, "no watcher has seen it go"
    with state_database.writing() as session:
        for name in names[:3]:
            row = files.by_path(session, str(root), os.fsencode(name))
            assert row is not None
            files.put(session, row.id, FileState.VANISHED, "It is no longer in the folder.")
    asked = ask("verify", "--all")
    assert asked.exit_code == 1 and asked.output.count("photochrom roots let-go PATH") == 3
    assert ask("roots", "let-go", str(root / "box")).exit_code == 0
    assert json.loads(ask("verify", "--all", "--json").stdout)["counts"]["original let go"] == 1
    assert ask("roots", "let-go", str(root / "a.png"), str(root / "box0.png")).exit_code == 0
    assert ask("verify", "--all").exit_code == 0
    assert "taken away on purpose" in ask("why", str(root / "a.png")).output
    (root.parent / "output" / "a.png").unlink()
    assert ask("verify", "--all").exit_code == 1, "its derivative was not meant"
    assert ask("roots", "let-go", "--derivative", str(root / "a.png")).exit_code == 0
    assert ask("roots", "let-go", str(root)).exit_code == 0
    assert ask("verify", "--all").exit_code == 0
    (root / "a.png").write_bytes(b"scan a.png")
    assert json.loads(ask("verify", "--all", "--json").stdout)["counts"]["original ok"] == 2


def test_a_link_in_a_watched_folder_lets_go_nothing_elsewhere(root: Path, state_database: Database) -> None:
    for name in ("1911/a.png", "1912/a.png"):
        (root / name).parent.mkdir()
        (root.parent / "output" / name).parent.mkdir()
        done(state_database, root, name)
        (root / name).unlink()
        with state_database.writing() as session:
            row = files.by_path(session, str(root), os.fsencode(name))
            assert row is not None
            files.put(session, row.id, FileState.VANISHED, "It is no longer in the folder.")
    (root / "1911").rmdir()
    (root / "1911").symlink_to("1912")
    assert ask("roots", "let-go", str(root / "1911")).exit_code == 0
    asked = ask("verify", "--all")
    assert (
        asked.exit_code == 1
        and "1912/a.png" in asked.output
        and f"missing: the original {root}/1911" not in asked.output
    )


def test_one_lost_derivative_among_others_is_named_with_the_way_back(root: Path, state_database: Database) -> None:
    first, *_ = [done(state_database, root, f"{number}.png") for number in range(40)]
    lost = root.parent / "output" / "0.png"
    lost.unlink()
    asked = ask("verify", "--all")
    told = f"missing: the derivative {lost} (job {first}); `photochrom retry {first}` makes it again from the original"
    assert told in asked.output.splitlines()
    assert asked.exit_code == 1 and "1 derivative missing, 39 derivative ok" in asked.output


def test_a_lost_derivative_whose_original_is_gone_too_is_not_promised(root: Path, state_database: Database) -> None:
    """Sent back it would end as skipped, and with it the record of who coloured it, when and how."""
    lost, _ = [done(state_database, root, f"{name}.png") for name in "ab"]
    (root.parent / "output" / "a.png").unlink()
    (root / "a.png").unlink()
    asked = ask("retry", str(lost))
    assert asked.exit_code == 1 and f"its original {root / 'a.png'} is not there" in asked.output
    assert state_of(state_database, lost) is JobState.DONE
    for told in (ask("verify", "--all").output, ask("why", str(root.parent / "output" / "a.png")).output):
        assert "photochrom retry" not in told and "restore either from a backup" in told
    root.rename(root.with_name("away"))
    root.mkdir()
    with state_database.writing() as session:
        files.set_offline(session, str(root), "Another folder is in its place.")
    for told in (ask("verify", "--all").output, ask("why", str(root.parent / "output" / "a.png")).output):
        assert f"photochrom retry {lost}" in told and "backup" not in told


def test_what_cannot_be_looked_at_is_not_called_missing(root: Path, state_database: Database) -> None:
    done(state_database, root, "a.png")
    done(state_database, root, "b.png")
    (root / "loop").symlink_to("loop")
    with state_database.writing() as session:
        for job in session.query(Job):
            job.path = b"loop/" + job.path
    assert json.loads(ask("verify", "--all", "--json").stdout)["counts"]["original unreadable"] == 2


def test_a_lost_derivative_is_made_again_and_no_other(root: Path, state_database: Database) -> None:
    job_id = done(state_database, root, "a.png")
    derivative = root.parent / "output" / "a.png"
    Path(f"{derivative}.json").touch()
    asked = ask("retry", str(job_id))
    assert asked.exit_code == 1 and f"is done; to have it done again, move its derivative {derivative}" in asked.output
    derivative.unlink()
    (root.parent / "output").rename(root.parent / "elsewhere")
    asked = ask("retry", str(job_id))
    assert asked.exit_code == 1 and "is not there: mount it" in asked.output
    (root.parent / "elsewhere").rename(root.parent / "output")
    assert f"`photochrom retry {job_id}` makes it again from the original." in ask("why", str(root / "a.png")).output
    assert ask("retry", str(job_id)).exit_code == 0
    assert state_of(state_database, job_id) is JobState.QUEUED
    asked = ask("retry", str(job_id), "999")
    assert asked.exit_code == 1
    assert f"Job {job_id} is neither quarantined nor skipped, but queued" in asked.output
    assert "Job 999 is not in the record" in asked.output
    job = claimed(state_database, job_id)
    assert (job.claim_no, job.model_version) == (2, "v1")


def test_a_sidecar_that_is_lost_alone_is_made_again(
    root: Path, state_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where sidecars are wanted, and only while the derivative has our bytes: no other would be replaced."""
    job_id = done(state_database, root, "a.png")
    output = root.parent / "output"
    assert (
        f"`photochrom retry {job_id}` makes it and the derivative again"
        in ask("why", str(output / "a.png.json")).output
    )
    monkeypatch.setenv("PHOTOCHROM_SIDECAR", "false")
    assert ask("retry", str(job_id)).exit_code == 1
    assert "photochrom retry" not in ask("why", str(output / "a.png.json")).output
    monkeypatch.delenv("PHOTOCHROM_SIDECAR")
    (output / "a.png").write_bytes(b"retouched")
    assert ask("retry", str(job_id)).exit_code == 1
    (output / "a.png").write_bytes(b"colour")
    (root / "a.png").unlink()
    assert "photochrom retry" not in ask("why", str(output / "a.png.json")).output
    (root / "a.png").write_bytes(b"scan a.png")
    assert ask("retry", str(job_id)).exit_code == 0
    assert state_of(state_database, job_id) is JobState.QUEUED


def test_a_worker_that_works_on_a_large_scan_is_not_called_dead(root: Path, state_database: Database) -> None:
    waits, held = (submitted(state_database, root, name, name.encode()) for name in ("waits.png", "held.png"))
    claimed(state_database, held)
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1000)
    with state_database.writing() as session:
        session.get_one(Job, waits).created_at = long_ago
        session.query(JobEvent).update({"at": long_ago})
        session.get_one(Job, held).started_at = long_ago
    health()
    assert "workers are busy with 1 scan that takes long" in ask("health").output
    with state_database.writing() as session:
        session.get_one(Job, held).lease_until = after(-1)  # it died
    health("work")
    with state_database.writing() as session:
        session.get_one(Job, held).lease_until = after(7200)  # it died, then the clock was put back
    health("work")


def test_verify_all_where_the_folder_is_away_says_so_once(root: Path, state_database: Database) -> None:
    for number in range(3):
        job = claimed(state_database, submitted(state_database, root, f"{number}.png", b"scan %d" % number))
        (root.parent / "output" / f"{number}.png").write_bytes(b"colour")
        with state_database.writing() as session:
            jobs.finish(session, job, JobState.DONE, reason="", output_path=b"%d.png" % number,
                        output_sha256=hashlib.sha256(b"colour").hexdigest())  # fmt: skip
    with state_database.writing() as session:
        session.query(Root).one().identity = json.dumps({"inode": root.stat().st_ino})
    root.rename(root.parent / "elsewhere")
    for there in (False, True):  # no folder, and the empty one that it was mounted on
        if there:
            root.mkdir()
        asked = ask("verify", "--all")
        lines = asked.output.splitlines()
        assert asked.exit_code == 6
        assert lines[0].startswith(f"offline: the watched folder {root} is not there") and len(lines) == 2, asked.output
        assert "3 originals were not looked at" in lines[0]
        assert lines[1] == "3 derivative ok, 3 original offline"
    (root.parent / "output" / "0.png").unlink()
    asked = ask("verify", "--all", "--json")
    assert asked.exit_code == 1
    assert [item["what"] for item in json.loads(asked.stdout)["findings"]] == ["derivative", "folder"]
    root.rmdir()
    (root.parent / "elsewhere").rename(root)
    (root / "1.png").unlink()
    assert "missing: the original" in ask("verify", "--all").output
