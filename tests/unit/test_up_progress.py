"""What `up` says, when it calls a folder drained, how it restarts, what it hands down: all without processes."""

import dataclasses
import datetime as dt
import errno
import io
import json
import os
from pathlib import Path

import pytest

from daemon import progress, up
from daemon.childlog import READ_BYTES, ROTATE_BYTES, ChildLog
from daemon.children import HEALTHY_S, Child, Keeper
from daemon.progress import Console
from daemon.supervisor import Supervisor
from worker import jobs
from worker.db import Database, open_database
from worker.errors import BrokerUnavailable, ExitCode, OutputUnwritable, StateDirInUse
from worker.overview import Overview, RootStatus
from worker.settings import RootSettings, Settings, load
from worker.tables import FileState, Job, JobState, SourceFile

ROOT = RootStatus(name="a", path="/a", output="/o", mode="events", state="online", reason="", files=3, scanned_at=None)
EMPTY = Overview(
    jobs={}, files={}, ended_since={}, unscanned=[], roots=[ROOT], oldest_waiting=None, per_minute=0, working=[]
)


def _seen(**changes: object) -> Overview:
    return dataclasses.replace(EMPTY, **changes)  # type: ignore[arg-type]


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


class FakePart:
    """A part that dies when told to."""

    name = "worker"

    def __init__(self) -> None:
        self.starts = 0
        self.alive = False
        self.status: int | None = None
        self.refuse = False

    def start(self) -> None:
        if self.refuse:
            raise BrokerUnavailable("It is away.")
        self.starts += 1
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive

    def bury(self) -> str:
        return f"ended with status {self.status}"

    def die(self, status: int = 1) -> None:
        self.alive, self.status = False, status


def test_pauses_between_restarts_grow_to_ten_seconds() -> None:
    part, now_s = FakePart(), 0.0
    keeper = Keeper(part)
    pauses = []
    for _ in range(7):
        keeper.tick(now_s)
        part.die()
        told = keeper.tick(now_s)
        assert told is not None
        died_s = now_s
        while not part.alive:
            now_s += 0.5
            keeper.tick(now_s)
        pauses.append(now_s - died_s)
        assert f"again in {pauses[-1]:.0f} s" in told
    assert pauses == [1, 2, 4, 8, 10, 10, 10]


def test_a_minute_of_health_forgets_earlier_deaths() -> None:
    part, keeper = FakePart(), None
    keeper = Keeper(part)
    for now_s in (0.0, 2.0):
        keeper.tick(now_s)
        part.die()
        keeper.tick(now_s)
    keeper.tick(5.0)
    part.die()
    assert keeper.tick(5.0 + HEALTHY_S) == "The worker ended with status 1; it is started again in 1 s."


def test_what_cannot_start_is_told_and_tried_again() -> None:
    part = FakePart()
    part.refuse = True
    keeper = Keeper(part)
    assert keeper.tick(0.0) == "The worker cannot start: It is away.; it is started again in 1 s."
    part.refuse = False
    assert keeper.tick(0.5) is None
    assert keeper.tick(1.0) == "The worker was started again."
    assert keeper.hopeless is None


@pytest.mark.parametrize("code", [ExitCode.WEIGHTS, ExitCode.BAD_SETTING, ExitCode.DEPENDENCY, ExitCode.USAGE])
def test_a_fault_that_no_restart_heals_gives_up(code: ExitCode) -> None:
    part = FakePart()
    keeper = Keeper(part)
    keeper.tick(0.0)
    part.die(code)
    keeper.tick(1.0)
    assert keeper.hopeless == code


@pytest.mark.parametrize(("code", "lived_s"), [(ExitCode.DATABASE, 1), (ExitCode.BROKER, 1), (ExitCode.WEIGHTS, 61)])
def test_a_fault_that_may_heal_does_not_give_up(code: ExitCode, lived_s: float) -> None:
    part = FakePart()
    keeper = Keeper(part)
    keeper.tick(0.0)
    part.die(code)
    keeper.tick(lived_s)
    assert keeper.hopeless is None


def test_progress_is_rewritten_on_a_terminal() -> None:
    out = Terminal()
    console = Console(out)
    console.progress("done 1", 0.0)
    console.say("The worker died.")
    console.progress("done 2", 0.1)
    console.end_progress()
    assert out.getvalue() == "\r\x1b[Kdone 1\r\x1b[KThe worker died.\ndone 1\r\x1b[Kdone 2\n"


def test_progress_is_printed_on_change_every_five_seconds_elsewhere() -> None:
    out = io.StringIO()
    console = Console(out)
    for now_s, text in [(0.0, "done 1"), (1.0, "done 2"), (4.9, "done 3"), (5.0, "done 4"), (20.0, "done 4")]:
        console.progress(text, now_s)
    assert out.getvalue() == "done 1\ndone 4\n"


def test_a_terminal_that_went_away_or_knows_no_arrows_is_no_error() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Console(Gone()).say("x")
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(narrow).say("a → b \udcff")
    assert narrow.buffer.getvalue() == b"a \\u2192 b \\udcff\n"  # type: ignore[attr-defined]


def test_the_progress_line_counts_every_state_and_fits() -> None:
    jobs = {"done": 123456, "queued": 1000, "running": 2, "needs_review": 3, "quarantined": 4, "duplicate": 5}
    line = progress.progress_line(_seen(jobs=jobs, files={"settling": 6, "blocked": 1}, per_minute=7))
    assert line == (
        "done 123456 | queued 1000 | running 2 | settling 6 | needs review 3 | quarantined 4 | duplicate 5 | blocked 1"
        " | 7/min"
    )


def test_the_banner_says_where_what_how_and_how_to_stop(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "my state", inbox=tmp_path / "in", output=tmp_path / "out")
    text = progress.banner(settings, 4711, drain=False)
    assert f"{tmp_path}/in  (" in text
    assert f"→  {tmp_path}/out" in text
    assert f"status --watch --state-dir '{tmp_path}/my state'" in text
    assert "Ctrl-C here, or kill 4711" in text


def test_the_banner_says_which_folder_is_missing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    made = [RootSettings(path=tmp_path / name, output=tmp_path / f"{name} out", name=name) for name in ("in", "gone")]
    lines = progress.banner(Settings(state_dir=tmp_path / "s", roots=tuple(made)), 1, drain=False).splitlines()
    told = {line.partition("  (")[0].strip(): "taken when it appears" in line for line in lines[1:3]}
    assert told == {str(tmp_path / "in"): False, str(tmp_path / "gone"): True}


def test_a_folder_that_stays_missing_does_not_keep_back_what_was_found() -> None:
    seen = _seen(unscanned=["a"], roots=[dataclasses.replace(ROOT, state="offline")])
    assert not progress.is_scanned(seen, progress.OFFLINE_S - 1), "an earlier run may have left that"
    assert progress.is_scanned(seen, progress.OFFLINE_S + 1)
    assert not progress.is_scanned(_seen(unscanned=["a"]), progress.OFFLINE_S + 1)


def test_what_was_found() -> None:
    settings = Settings(roots=(RootSettings(path=Path("/a"), output=Path("/o"), name="a"),))
    seen = _seen(files={"settling": 1, "ignored": 1}, jobs={"queued": 1, "done": 10})
    assert progress.found(seen, settings) == "Found 3 files: 2 to work on, 1 ignored."
    again = _seen(jobs={"done": 2}, files={"blocked": 1})
    assert progress.found(again, settings) == "Found 3 files: 0 to work on, 1 blocked, 2 dealt with before."
    nothing = _seen(roots=[dataclasses.replace(ROOT, files=0)])
    assert progress.found(nothing, settings) == "Found no files yet. Drop scans into /a."


@pytest.mark.parametrize(
    "open_",
    [{"jobs": {"queued": 1}}, {"jobs": {"running": 1}}, {"files": {"settling": 1}}, {"unscanned": ["a"]}],
)
def test_nothing_open_is_left_behind_by_a_drain(open_: dict[str, object]) -> None:
    closed = {"done": 5, "quarantined": 1, "skipped": 1}
    assert progress.is_drained(_seen(jobs=closed, files={"ignored": 2, "blocked": 1, "submitted": 9}), 1.0)
    assert not progress.is_drained(_seen(**open_), 1000.0)


def test_a_root_out_of_reach_is_waited_for_only_a_while() -> None:
    away = _seen(roots=[dataclasses.replace(ROOT, state="offline", reason="The folder is not there.")], unscanned=["a"])
    assert not progress.is_drained(away, 1.0)
    assert progress.is_drained(away, progress.OFFLINE_S + 1)
    assert progress.drained_exit(away) == ExitCode.SOME_NOT_TAKEN
    assert progress.offline_roots(away) == [("/a", "The folder is not there.")]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ended_since": {"done": 3}}, ExitCode.OK),
        ({"jobs": {"quarantined": 1}}, ExitCode.OK),  # of an earlier run
        ({"ended_since": {"quarantined": 1}}, ExitCode.SOME_QUARANTINED),
        ({"files": {"blocked": 1}}, ExitCode.SOME_NOT_TAKEN),
        ({"ended_since": {"quarantined": 1}, "files": {"blocked": 1}}, ExitCode.SOME_QUARANTINED),
    ],
)
def test_exit_code_of_a_drain(changes: dict[str, object], code: ExitCode) -> None:
    assert progress.drained_exit(_seen(**changes)) == code


def test_the_summary_names_what_went_wrong_and_the_next_step(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, output=tmp_path / "out")
    seen = _seen(ended_since={"done": 2, "quarantined": 12}, jobs={"queued": 1})
    quarantined = [(number, f"/a/{number}.tif", "It is broken.") for number in range(7, 19)]
    text = progress.summary(seen, settings, quarantined, [("/a/b c.tif", "No permission.")])
    assert "In this run: 2 done, 12 quarantined." in text
    assert f"Results are in {tmp_path}/out." in text
    assert "Quarantined: /a/7.tif: It is broken." in text
    assert "Quarantined: 2 files more." in text
    assert "Not taken: /a/b c.tif: No permission." in text
    assert f"jobs --state quarantined --state-dir {tmp_path}" in text
    assert f"retry 7 --state-dir {tmp_path}" in text
    assert "why '/a/b c.tif'" in text
    assert "1 file still to be done" in text
    assert "Results" not in progress.summary(_seen(ended_since={"quarantined": 1}), settings, [], [])
    assert progress.summary(EMPTY, settings, [], []) == "In this run: nothing to do."


def test_children_get_exactly_our_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photochrom.toml").write_text('settle_s = 1.5\n[[roots]]\npath = "a b"\noutput = "ö"\nsettle_s = 2\n')
    settings = load({"state_dir": tmp_path / "state dir", "device": "cpu"})
    (tmp_path / "photochrom.toml").write_text("settle_s = 99\n")
    for name, value in up.environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load() == settings


def test_a_state_directory_has_one_holder(tmp_path: Path) -> None:
    here = tmp_path / "state"
    with (
        up.state_directory(here),
        pytest.raises(StateDirInUse, match=f"process {os.getpid()}"),
        up.state_directory(here),
    ):
        pass
    with up.state_directory(tmp_path / "state"):
        pass


def test_a_state_directory_is_ours_alone(tmp_path: Path) -> None:
    """Who may read the database's files can lock them, and no part of ours could write."""
    with up.state_directory(tmp_path / "state"):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    open_database(f"sqlite:///{tmp_path / 'another' / 'photochrom.db'}").dispose()
    assert (tmp_path / "another").stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable, match="--state-dir"), up.state_directory(tmp_path / "file"):
        pass


def _line(level: str, message: str, **extra: object) -> str:
    time = dt.datetime(2026, 11, 22, tzinfo=dt.UTC).isoformat()
    return json.dumps({"time": time, "level": level, "logger": "x", "message": message, **extra}) + "\n"


def test_warnings_of_children_are_told_once_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text(_line("error", "of an earlier run"))
    log = ChildLog(path)
    with path.open("a") as file:
        file.write(
            _line("info", "fine")
            + "WARNING: noise of a library\n"
            + _line("warning", "slow", job_id=3, reason="Old disk.") * 2
        )
        file.write(
            "[2026-11-22 10:00:00,000: ERROR/MainProcess] consumer: Cannot connect\n" + _line("error", "half")[:9]
        )
    assert log.news(0.0) == [
        "warning: slow: Old disk. (job_id 3)",
        "[2026-11-22 10:00:00,000: ERROR/MainProcess] consumer: Cannot connect",
    ]
    with path.open("a") as file:
        file.write(_line("error", "half")[9:] + _line("warning", "slow", job_id=3, reason="Old disk."))
    assert log.news(1.0) == ["error: half"]
    assert log.last_words == "slow"
    with path.open("a") as file:
        file.write(_line("warning", "slow", job_id=3, reason="Old disk."))
    assert log.news(61.0) == ["warning: slow: Old disk. (job_id 3)"]


def test_the_same_about_other_jobs_is_told_once_and_shortly(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "worker.log")
    task = "Task photochrom.colorize[{}] raised unexpected: " + "x" * 1000
    ids = ("71d6516d-318e-4daa-bbc5-49f7506b7cb4", "873154a7-4a19-419c-bac8-fdcd09fea525")
    (tmp_path / "worker.log").write_text("".join(_line("error", task.format(id_), data={"a": 1}) for id_ in ids))
    (told,) = log.news(0.0)
    assert len(told) == 300


def test_it_is_told_when_the_worker_is_ready(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "worker.log")
    (tmp_path / "worker.log").write_text(_line("info", "worker_ready", worker="w:1", device="cpu", model="first"))
    assert log.news(0.0) == ["ready, on cpu, with the model first"]


def test_a_line_without_end_is_got_over(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "worker.log")
    (tmp_path / "worker.log").write_text("x" * (READ_BYTES + 10) + "\n" + _line("error", "seen"))
    assert log.news(0.0) + log.news(0.0) == ["error: seen"]


def test_logs_are_rotated_by_size_and_three_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    log = ChildLog(path)
    assert not log.rotate(limit_bytes=10)
    with path.open("a") as child:
        for word in ("one", "two", "three", "four", "five"):
            child.write(_line("error", word))
            child.flush()
            assert log.news(0.0) == [f"error: {word}"]
            assert log.rotate(limit_bytes=10)
    kept = {file.name: json.loads(file.read_text())["message"] for file in tmp_path.glob("worker.log.*")}
    assert kept == {"worker.log.1": "five", "worker.log.2": "four", "worker.log.3": "three"}
    assert path.read_text() == ""


@pytest.fixture
def followed(tmp_path: Path) -> tuple[Supervisor, io.StringIO]:
    """A supervisor that follows one log; its part is never started."""
    out = io.StringIO()
    child = Child("worker", ["true"], log=tmp_path / "worker.log", environ={})
    return Supervisor(Console(out), tmp_path, started=[], to_start=[child]), out


def test_a_log_that_was_removed_is_made_again(followed: tuple[Supervisor, io.StringIO], tmp_path: Path) -> None:
    supervisor, out = followed
    path = tmp_path / "worker.log"
    path.write_text(_line("error", "before"))
    supervisor._echo()
    path.unlink()
    supervisor._echo()
    assert path.read_text() == ""
    path.write_text(_line("error", "after, and longer than what stood there"))
    supervisor._echo()
    assert out.getvalue() == "worker: error: before\nworker: error: after, and longer than what stood there\n"


def test_a_full_disk_costs_a_part_of_a_log_and_no_more(
    followed: tuple[Supervisor, io.StringIO], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copied_in_half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    supervisor, out = followed
    monkeypatch.setattr("daemon.childlog.shutil.copyfile", copied_in_half)
    (tmp_path / "worker.log.1").write_text("older")
    (tmp_path / "worker.log").write_bytes(_line("error", "the last").encode() + b"\n" * ROTATE_BYTES)
    with progress.logged_to(supervisor._console):
        for _ in range(2):
            supervisor._echo()
    there = {file.name: file.read_bytes() for file in tmp_path.glob("worker.log*")}
    assert there == {"worker.log": b"", "worker.log.2": b"older"}
    lost = f"A part of the log {tmp_path / 'worker.log'} is lost: it cannot be copied (No space left on device)."
    assert out.getvalue().splitlines() == [lost, "worker: error: the last"]


def test_a_log_that_cannot_be_read_is_told_once_and_ends_nothing(
    followed: tuple[Supervisor, io.StringIO], tmp_path: Path
) -> None:
    supervisor, out = followed
    (tmp_path / "worker.log").unlink()
    (tmp_path / "worker.log").mkdir()
    for _ in range(3):
        supervisor._echo()
    (line,) = out.getvalue().splitlines()
    assert line.startswith(f"worker: Its log {tmp_path / 'worker.log'} cannot be kept (Is a directory).")


@pytest.mark.parametrize(("asked", "lost"), [(True, 0), (False, 1)])
def test_a_job_bears_a_strike_for_a_dead_worker_not_for_a_stopped_one(
    database: Database, asked: bool, lost: int
) -> None:
    with database.writing() as session:
        file = SourceFile(
            root="a", directory=b"", path=b"a.tif", display_path="a.tif", state=FileState.SUBMITTED,
            size_bytes=1, mtime_ns=1, ctime_ns=1, inode=1,
        )  # fmt: skip
        session.add(file)
        session.flush()
        job, _ = jobs.submit(session, file, "a" * 64, priority=3)
    for worker in ("host-1-aaaaaa:7:x", "host-1-bbbbbb:8:y"):
        with database.writing() as session:
            jobs.claim(session, job.id, worker=worker, device="cpu", host="host", model_version="v", lease_s=20)
        up._GiveBack(Settings(), database)("host-1-bbbbbb", asked)
        with database.reading() as session:
            left = session.get_one(Job, job.id)
            if worker.startswith("host-1-aaaaaa"):  # another's: not touched
                assert left.state is JobState.RUNNING
                with database.writing() as writing:
                    jobs.release(writing, left, "for the second round")
            else:
                assert (left.state, left.lost) == (JobState.QUEUED, lost)


def test_a_virtual_environment_s_program_is_named_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    itself = tmp_path / "photochrom"
    itself.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [str(itself)])
    monkeypatch.setattr("sys.base_prefix", "/usr")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert progress.program() == str(itself)
    monkeypatch.setattr("sys.prefix", "/usr")
    assert progress.program() == "photochrom"
