"""The command line: quick, helpful, and one sentence with the documented exit code for whatever is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from daemon.cli import VERBS, main
from worker.db import Database
from worker.errors import ExitCode
from worker.settings import Settings
from worker.tables import FileState, Job, JobState, SourceFile

HEAVY = ("tensorflow", "keras", "numpy", "cv2", "sqlalchemy", "celery", "pydantic", "rich", "pyvips")
#: verbs that import TensorFlow or the picture libraries only when they run
QUESTIONS = ["status", "why", "jobs", "retry", "doctor", "config"]


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _loaded(*arguments: str) -> set[str]:
    """What the command has imported at its end, in a process of its own."""
    program = (
        "import sys\nfrom daemon.cli import main\n"
        f"try: main({list(arguments)!r}, prog_name='photochrom')\n"
        f"except SystemExit as end: print('LOADED', end.code, *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "LOADED 0" in done.stdout, done.stdout + done.stderr
    return set(done.stdout.rpartition("LOADED 0")[2].split())


def _sentence(result: Result, code: ExitCode) -> str:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("photochrom: ") and result.stderr.count("\n") == 1
    return result.stderr


def test_help_loads_nothing_heavy() -> None:
    assert _loaded("--help") == set()
    assert _loaded("--version") == set()


@pytest.mark.parametrize("verb", ["up", "status", "worker", "colorize", "train"])
def test_help_of_a_verb_loads_no_net(verb: str) -> None:
    assert _loaded(verb, "--help") & {"tensorflow", "keras", "cv2", "pyvips"} == set()


def test_help_names_every_verb() -> None:
    result = _run("--help")
    assert result.exit_code == 0
    assert all(f"  {verb} " in result.output for verb in VERBS)
    assert "photochrom up" in result.output


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_says_what_it_does(verb: str) -> None:
    result = _run(verb, "--help")
    assert result.exit_code == 0, result.output
    assert "--state-dir" in result.output and "-h, --help" in result.output


@pytest.mark.parametrize(
    "arguments", [["--state-dir", "{}", "config", "--json"], ["config", "--json", "--state-dir", "{}"]]
)
def test_the_state_directory_is_named_before_or_after_the_verb(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOCHROM_STATE_DIR", "/overridden")  # and restored after the test
    result = _run(*(argument.format(tmp_path / "state") for argument in arguments))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["state_dir"] == str(tmp_path / "state")


def test_an_unknown_verb_and_an_unknown_option_are_usage_errors() -> None:
    assert _run("statsu").exit_code == ExitCode.USAGE
    assert _run("status", "--jason").exit_code == ExitCode.USAGE
    assert _run("jobs", "--state", "lost").exit_code == ExitCode.USAGE
    assert _run("retry").exit_code == ExitCode.USAGE


def test_a_wrong_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOCHROM_INBX", "x")
    for verb in ("status", "config", "doctor", "up", "watch", "worker", "beat", "migrate"):
        assert "Did you mean PHOTOCHROM_INBOX?" in _sentence(_run(verb), ExitCode.BAD_SETTING)


def test_a_question_creates_nothing(state_dir: Path) -> None:
    for arguments in (["status"], ["jobs"], ["why", "a.tif"], ["retry", "1"], ["verify", "--all"]):
        assert "photochrom up" in _sentence(_run(*arguments), ExitCode.DATABASE)
    assert list(state_dir.iterdir()) == []


def test_a_missing_inbox_is_one_sentence(state_dir: Path, tmp_path: Path) -> None:
    said = _sentence(
        _run("up", "--inbox", str(tmp_path / "none"), "--output", str(tmp_path / "out")), ExitCode.BAD_ROOT
    )
    assert str(tmp_path / "none") in said
    assert not (tmp_path / "out").exists()


def test_inbox_on_the_command_line_is_not_overruled_by_the_file(state_dir: Path, tmp_path: Path) -> None:
    """Precedence: the command line wins, or says why it cannot; never is it passed over in silence."""
    Path("photochrom.toml").write_text(f'[[roots]]\npath = "{tmp_path}/a"\noutput = "{tmp_path}/b"\n')
    said = _sentence(_run("up", "--inbox", str(tmp_path / "other")), ExitCode.BAD_SETTING)
    assert "--inbox" in said and "[[roots]]" in said


@pytest.fixture
def one_job(state_database: Database) -> Database:
    with state_database.writing() as session:
        file = SourceFile(
            root="r", directory=b"", path=b"\xff.tif", display_path=r"\xff.tif", state=FileState.SUBMITTED,
            size_bytes=1, mtime_ns=1, ctime_ns=1, inode=1,
        )  # fmt: skip
        session.add(file)
        session.flush()
        session.add(
            Job(source_file_id=file.id, root="r", path=b"\xff.tif", display_path=r"\xff.tif", source_sha256="a" * 64,
                size_bytes=1, state=JobState.QUARANTINED, reason="Broken.")
        )  # fmt: skip
    return state_database


def test_jobs_are_one_json_array_with_the_view_s_columns(one_job: Database) -> None:
    (row,) = json.loads(_run("jobs", "--json").stdout)
    assert row["path"] == r"\xff.tif" and row["state"] == "quarantined" and row["attempts"] == 0
    with one_job.engine.connect() as connection:
        columns = {column["name"] for column in sa.inspect(connection).get_columns("job_status")}
    assert set(row) == columns
    assert row["created_at"].endswith("+00:00")
    assert json.loads(_run("jobs", "--json", "--state", "done").stdout) == []
    assert "Broken." in _run("jobs", "--state", "quarantined").stdout


def test_status_counts(one_job: Database) -> None:
    result = _run("status")
    assert result.exit_code == 0 and "1 quarantined" in result.stdout
    assert json.loads(_run("status", "--json").stdout)["jobs"] == {"quarantined": 1}


def test_why_answers_for_any_path(one_job: Database) -> None:
    result = _run("why", "/nowhere/a.tif")
    assert result.exit_code == 0 and "outside" in result.stdout
    assert json.loads(_run("why", "/nowhere/a.tif", "--json").stdout)["state"] == "outside"
    assert _run("why", os.fsdecode(b"/nowhere/\xff.tif")).exit_code == 0


def test_retry_sends_back_once_and_says_what_it_cannot(one_job: Database) -> None:
    result = _run("retry", "1")
    assert result.exit_code == 0 and "waits in the queue again" in result.stdout
    again = _run("retry", "1", "4711")
    assert again.exit_code == ExitCode.FAILED
    assert "Job 1 is neither" in again.stderr and "Job 4711" in again.stderr
    assert _run("retry", "9" * 30).exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    "verb", ["retry", "quarantine show", "quarantine retry", "quarantine dismiss", "curated show", "curated accept",
             "curated reject"]
)  # fmt: skip
def test_a_number_that_no_row_can_have_is_wrong_usage(one_job: Database, verb: str) -> None:
    for number in ("9" * 20, "9" * 10, "0"):
        result = _run(*verb.split(), number)
        assert result.exit_code == ExitCode.USAGE and "range" in result.stderr, result.output


def test_config_lists_every_setting_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOCHROM_DATABASE_URL", "postgresql://me:secret@host/x")
    monkeypatch.setenv("PHOTOCHROM_BROKER_URL", "redis://:secret@host/0")
    for arguments in (["config"], ["config", "--json"]):
        result = _run(*arguments)
        assert result.exit_code == 0 and "secret" not in result.output, result.output
    assert set(json.loads(_run("config", "--json").stdout)) == set(Settings.model_fields)


def test_config_shows_a_url_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`config` is how a wrong one is found."""
    monkeypatch.setenv("PHOTOCHROM_BROKER_URL", "redis+socket:///run/valkey.sock?virtual_host=0")
    monkeypatch.setenv("PHOTOCHROM_DATABASE_URL", "nonsense")
    result = _run("config")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "valkey.sock" in result.output


def test_a_database_url_that_is_none_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOCHROM_DATABASE_URL", "nonsense")
    for verb in ("status", "jobs", "migrate", "worker"):
        assert "Correct database_url" in _sentence(_run(verb), ExitCode.DATABASE)


def test_a_newer_database_is_one_sentence(state_database: Database) -> None:
    with state_database.writing() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = 'later'"))
    for verb in ("status", "migrate", "worker"):
        assert "newer Photochrom" in _sentence(_run(verb), ExitCode.DATABASE)


def test_migrate_makes_a_database_that_the_questions_can_read(state_dir: Path) -> None:
    assert _run("migrate").exit_code == 0
    assert (state_dir / "photochrom.db").is_file()
    assert _run("jobs", "--json").stdout.strip() == "[]"
