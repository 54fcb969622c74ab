"""`photochrom up` with bad input: one clear sentence with the next step, its exit code, and nothing touched."""

import contextlib
import fcntl
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from worker.errors import ExitCode


def _up(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PHOTOCHROM_")}
    return subprocess.run(
        [sys.executable, "-m", "daemon.cli", "up", *options],
        cwd=folder,
        env=clean | variables | {"PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _refused(result: subprocess.CompletedProcess[str], code: ExitCode, *words: str) -> None:
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("photochrom: ")
    assert line.endswith(".")
    for word in words:
        assert word in line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes(b"untouched")
    return tmp_path


def _tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("options", "variables", "code", "words"),
    [
        (["--inbox", "away"], {}, ExitCode.BAD_ROOT, ["/away is not there", "mkdir -p"]),
        (["--inbox", "scans/a.png"], {}, ExitCode.BAD_ROOT, ["is a file"]),
        (["--output", "scans/out"], {}, ExitCode.BAD_ROOT, ["lie in each other"]),
        (["--output", "."], {}, ExitCode.BAD_ROOT, ["lie in each other"]),
        (["--state-dir", "scans/state"], {}, ExitCode.BAD_ROOT, ["lie in each other"]),
        (["--output", "away/out"], {}, ExitCode.BAD_OUTPUT, ["mkdir -p"]),
        ([], {"PHOTOCHROM_INBX": "x"}, ExitCode.BAD_SETTING, ["PHOTOCHROM_INBX", "PHOTOCHROM_INBOX?"]),
        ([], {"PHOTOCHROM_SETTLE_S": "-1"}, ExitCode.BAD_SETTING, ["settle_s"]),
    ],
)
def test_refused_before_anything_is_made(
    folder: Path, options: Sequence[str], variables: dict[str, str], code: ExitCode, words: Sequence[str]
) -> None:
    before = _tree(folder)
    _refused(_up(folder, *options, **variables), code, *words)
    assert _tree(folder) == before


def test_unknown_name_in_the_file(folder: Path) -> None:
    (folder / "photochrom.toml").write_text("inbx = 'x'\n")
    _refused(_up(folder), ExitCode.BAD_SETTING, "inbx", "inbox?")


def test_state_directory_in_use(folder: Path) -> None:
    (folder / ".photochrom").mkdir()
    with (folder / ".photochrom" / "up.lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        _refused(_up(folder), ExitCode.STATE_DIR_IN_USE, "process 4711", "--state-dir")


def test_no_broker_at_its_url(folder: Path) -> None:
    result = _up(folder, PHOTOCHROM_BROKER_URL=f"redis+socket://{folder}/nobody.sock")
    _refused(result, ExitCode.BROKER, "nobody.sock", "PHOTOCHROM_BROKER_URL")


def test_database_that_is_none(folder: Path) -> None:
    (folder / ".photochrom").mkdir()
    (folder / ".photochrom" / "photochrom.db").write_bytes(
        b"this is no database, but long enough to look like one" * 100
    )
    _refused(_up(folder), ExitCode.DATABASE, "photochrom.db")


def test_database_of_a_newer_version(folder: Path) -> None:
    (folder / ".photochrom").mkdir()
    database = folder / ".photochrom" / "photochrom.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('from_the_future')")
        connection.commit()
        before = list(connection.iterdump())
    _refused(_up(folder), ExitCode.DATABASE, "newer")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert list(connection.iterdump()) == before
    assert not (folder / ".photochrom" / "broker").exists()
