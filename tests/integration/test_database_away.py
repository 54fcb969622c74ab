"""A database that is full, locked, away, broken or forbidden is one plain line and exit code 9, whatever the verb."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from rows_made import source_file
from sqlalchemy.exc import DBAPIError, OperationalError

from daemon.cli import VERBS, main
from worker import db
from worker.database_errors import in_words
from worker.db import Database
from worker.errors import ExitCode
from worker.tables import Job, JobState

#: every verb that asks the database, as it is called; the others are named below
ASKS = [
    ["up", "--drain"], ["status"], ["status", "--json"], ["why", "a.tif"], ["jobs"], ["jobs", "--json"], ["retry", "1"],
    ["quarantine", "list"], ["quarantine", "show", "1"], ["quarantine", "retry", "--all"],
    ["quarantine", "dismiss", "1"],
    ["colorize", "a.tif", "--output", "out"], ["verify", "--all"], ["models", "list"], ["models", "rollback"],
    ["recolor", "--dry-run"], ["curated", "list"], ["curated", "show", "1"], ["curated", "accept", "1"],
    ["curated", "reject", "1"], ["curated", "stats"], ["retrain"], ["retrain", "--now"], ["watch"], ["worker"],
    ["trainer"], ["migrate"], ["roots", "accept", "r"],
]  # fmt: skip
ASKS_NOTHING = {"train", "evaluate", "selftest", "beat", "config"}
TELLS_AS_A_FINDING = {"health", "doctor"}


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _line(result: Result) -> str:
    assert result.exit_code == ExitCode.DATABASE, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("photochrom: ") and result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `up` and `watch` need before they look at the database."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "curated").mkdir()
    for name in ("inbox", "output", "curated"):
        monkeypatch.setenv(f"PHOTOCHROM_{name.upper()}", str(tmp_path / name))


@pytest.fixture
def quarantined(state_database: Database) -> int:
    """A job that `retry` may move."""
    with state_database.writing() as session:
        file = source_file()
        session.add(file)
        session.flush()
        job = Job(source_file_id=file.id, root="r", path=b"a", display_path="a", source_sha256="a" * 64, size_bytes=1,
                  state=JobState.QUARANTINED)  # fmt: skip
        session.add(job)
        session.flush()
        return job.id


def test_every_verb_is_listed_here() -> None:
    assert {call[0] for call in ASKS} | ASKS_NOTHING | TELLS_AS_A_FINDING == set(VERBS)


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("call", ASKS, ids=" ".join)
def test_a_server_that_is_not_there(
    call: list[str], state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOCHROM_DATABASE_URL", f"postgresql://me:secret@/scans?host={tmp_path / 'nowhere'}")
    said = _line(_run(*call))
    assert "secret" not in said and "Start the server" in said


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("call", ASKS, ids=" ".join)
def test_a_file_that_is_no_database(call: list[str], state_dir: Path) -> None:
    (state_dir / "photochrom.db").write_bytes(b"no database at all" * 1000)
    assert "from a backup" in _line(_run(*call))


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("verb", sorted(TELLS_AS_A_FINDING))
def test_those_who_look_at_everything_go_on_looking(verb: str, state_dir: Path) -> None:
    (state_dir / "photochrom.db").write_bytes(b"no database at all" * 1000)
    result = _run(verb)
    assert result.exit_code not in {0, 1} and isinstance(result.exception, SystemExit), result.exception
    assert "BAD  database" in result.stdout and "from a backup" in result.stdout


@pytest.fixture
def full(state_database: Database, quarantined: int) -> Iterator[int]:
    """A database that can grow no more, and a job in it."""
    file = Path(state_database.engine.url.database or "")

    def fill(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={file.stat().st_size // 4096}")

    state_database.dispose()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        fill(connection)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            while True:  # until what was free is used up
                connection.execute(
                    "INSERT INTO job_events (job_id, state, claim_no, note, at) VALUES (?, 'queued', 0, '', '')",
                    (quarantined,),
                )
                connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    sa.event.listen(sa.Engine, "connect", fill)
    yield quarantined
    sa.event.remove(sa.Engine, "connect", fill)


@pytest.mark.parametrize("call", [["retry"], ["quarantine", "retry"], ["quarantine", "dismiss"]], ids=" ".join)
def test_a_full_disk(full: int, call: list[str], state_database: Database) -> None:
    said = _line(_run(*call, str(full)))
    assert (
        "database or disk is full" in said and "free some space" in said and "Nothing that was recorded is lost" in said
    )
    with state_database.reading() as session:
        assert session.get_one(Job, full).state is JobState.QUARANTINED


@pytest.mark.parametrize("call", [["retry"], ["quarantine", "dismiss"]], ids=" ".join)
def test_a_database_that_another_program_holds(
    call: list[str], quarantined: int, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.01)
    holder = sqlite3.connect(state_dir / "photochrom.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert "Another program holds it" in _line(_run(*call, str(quarantined)))
    finally:
        holder.close()
    assert _run(*call, str(quarantined)).exit_code == 0


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read(quarantined: int, state_dir: Path) -> None:
    (state_dir / "photochrom.db").chmod(0)
    assert "Grant this user the right" in _line(_run("status"))


def test_the_traceback_is_there_for_whoever_wants_it(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state_dir / "photochrom.db").write_bytes(b"no database at all" * 1000)
    monkeypatch.setenv("PHOTOCHROM_LOG_LEVEL", "debug")
    result = _run("status")
    assert result.exit_code == ExitCode.DATABASE
    assert "Traceback" in result.stderr and "file is not a database" in result.stderr.splitlines()[-1]


def test_a_fault_of_ours_keeps_its_traceback(state_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise sa.exc.InvalidRequestError("a mistake in the program")

    monkeypatch.setattr("worker.overview.overview", broken)
    assert isinstance(_run("status").exception, sa.exc.InvalidRequestError)


class _Refused(Exception):
    """An error as psycopg raises them."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("as the server says it\nDETAIL: in more lines")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "advice"),
    [
        ("53100", "free some space"), ("55P03", "Another program"), ("42501", "Grant"), ("25006", "Grant"),
        ("28P01", "password"), ("3D000", "name of the database"), ("57P01", "Start the server"),
        ("08006", "Start the server"), ("XX001", "backup"), (None, "Start the server"), ("42P01", "photochrom doctor"),
    ],
)  # fmt: skip
def test_what_postgresql_says_gets_its_advice(sqlstate: str | None, advice: str) -> None:
    cause = _Refused(sqlstate)
    error: DBAPIError = OperationalError("SELECT secret", {"a": 1}, cause)
    error.__cause__ = cause
    said = str(in_words(error))
    assert advice in said and "as the server says it." in said
    assert "\n" not in said and "SELECT" not in said
