"""Settings: which source wins, and one sentence with the nearest name for everything that is wrong."""

import os
from pathlib import Path

import pytest
from kombu.utils.url import url_to_parts

from worker.errors import ExitCode, UnknownSetting
from worker.settings import SOCKET_PATH_MAX_BYTES, RootSettings, Settings, broker_socket, load


def _toml(text: str) -> None:
    Path("photochrom.toml").write_text(text)


def _refused(overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(UnknownSetting) as refused:
        load(overrides)
    assert refused.value.exit_code is ExitCode.BAD_SETTING
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_without_anything_the_defaults_hold() -> None:
    here = Path.cwd()
    settings = load()
    assert (settings.state_dir, settings.inbox, settings.output) == (
        here / ".photochrom", here / "scans", here / "colorized",
    )  # fmt: skip
    assert settings.database == f"sqlite:///{here}/.photochrom/photochrom.db"
    assert settings.watched == (RootSettings(path=settings.inbox, output=settings.output),)
    assert (settings.lease_s, settings.heartbeat_s, settings.sweep_s) == (20, 5, 5)
    assert (settings.max_failures, settings.max_lost, settings.scan_interval_s) == (3, 5, 60)


def test_command_line_over_environment_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    _toml("settle_s = 1\nwait_s = 1\nretry_s = 1\n")
    monkeypatch.setenv("PHOTOCHROM_WAIT_S", "2")
    monkeypatch.setenv("PHOTOCHROM_RETRY_S", "2")
    settings = load({"retry_s": 3, "settle_s": None})
    assert (settings.settle_s, settings.wait_s, settings.retry_s) == (1, 2, 3)


def test_a_file_elsewhere_is_read_when_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _toml("settle_s = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("settle_s = 7\n")
    monkeypatch.setenv("PHOTOCHROM_CONFIG", str(other))
    assert load().settle_s == 7
    monkeypatch.setenv("PHOTOCHROM_CONFIG", str(tmp_path / "none.toml"))
    assert _refused().endswith("which is no file. Correct it or unset it.")
    monkeypatch.setenv("PHOTOCHROM_CONFIG", "")
    assert load().settle_s == 1, "empty means: not set"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PHOTOCHROM_INBX", "PHOTOCHROM_INBOX"),
        ("PHOTOCHROM_BROKER", "PHOTOCHROM_BROKER_URL"),
        ("photochrom_setle_s", "PHOTOCHROM_SETTLE_S"),
        ("PHOTOCHROM_STATEDIR", "PHOTOCHROM_STATE_DIR"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    monkeypatch.setenv(name, "x")
    assert _refused() == f"There is no setting {name}. Did you mean {nearest}? `photochrom config` lists all."


def test_a_variable_like_nothing_gets_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOCHROM_QQQQQQQQQQQQQQ", "x")
    assert "Did you mean" not in _refused()


def test_variables_of_other_programs_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTO", "x")
    monkeypatch.setenv("MY_PHOTOCHROM_INBX", "x")
    load()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("setle_s = 1", "There is no setting setle_s. Did you mean settle_s?"),
        ('[[roots]]\npath = "a"\noutput = "b"\nsetle_s = 1', "no setting roots.0.setle_s. Did you mean settle_s?"),
        ('[[roots]]\npath = "a"', "Setting roots.0.output: Field required"),
        ('[[roots]]\npath = "a"\noutput = "b"\nbatch = "count"', "Setting roots.0.batch_count: must be 1 or more"),
        ("settle_s = 0", "Setting settle_s: Input should be greater than 0 (got 0)."),
        ('device = "tpu"', "Setting device: Input should be 'auto', 'cpu' or 'gpu' (got 'tpu')."),
        ('output_mode = "0999"', "Setting output_mode: "),
        ("jpeg_quality = 101\nin_flight = 0", "Setting in_flight: "),
        ("settle_s = ", "photochrom.toml cannot be read: "),
        ('[[roots]]\npath = "a"\noutput = "b"\n[[roots]]\npath = "./a"\noutput = "c"', "Setting roots: "),
        ('[[roots]]\nname = "x"\npath = "a"\noutput = "b"\n[[roots]]\nname = "x"\npath = "c"\noutput = "d"', "'x'"),
        ("lease_s = 5\nheartbeat_s = 5", "heartbeat_s"),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, says: str) -> None:
    _toml(text)
    assert says in _refused()


def test_all_faults_are_named_at_once() -> None:
    _toml("settle_s = 0\ndevise = 1\n")
    said = _refused()
    assert "settle_s" in said and "Did you mean device?" in said


def test_a_variable_that_does_not_parse_is_not_blamed_on_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOCHROM_ROOTS", "nonsense")
    said = _refused()
    assert "roots" in said and "photochrom.toml cannot be read" not in said


def test_a_file_that_may_not_be_read_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    _toml("settle_s = 1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "photochrom.toml")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    assert "photochrom.toml cannot be read: " in _refused()


def test_roots_come_with_absolute_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is shared by processes with other current folders."""
    monkeypatch.setenv("HOME", "/home/someone")
    _toml('[[roots]]\npath = "a/../b"\noutput = "~/out"\nmode = "scan"\npriority = "backlog"\n')
    (root,) = load().watched
    assert (root.path, root.output) == (Path.cwd() / "b", Path("/home/someone/out"))
    assert (root.key, root.mode, root.priority) == (str(Path.cwd() / "b"), "scan", "backlog")


def test_a_root_s_key_is_its_name_and_always_text_that_a_database_takes() -> None:
    assert RootSettings(path=Path("/a"), output=Path("/b"), name="archive").key == "archive"
    odd = RootSettings(path=Path(os.fsdecode(b"/a\xff")), output=Path("/b"))
    assert odd.key.encode() == rb"/a\xff"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().settle_s = 1


def test_urls_replace_the_embedded_parts() -> None:
    settings = load({"database_url": "postgresql://db/x", "broker_url": "redis://host/1"})
    assert (settings.database, settings.broker) == ("postgresql://db/x", "redis://host/1")


@pytest.mark.parametrize("name", ["wh?at", "a#b", "100%41", "with blank", "@:"])
def test_any_name_of_a_state_directory_leads_to_its_database(tmp_path: Path, name: str) -> None:
    from worker.db import open_database

    settings = load({"state_dir": tmp_path / name})
    open_database(settings.database).dispose()
    assert (tmp_path / name / "photochrom.db").is_file()
    socket = url_to_parts(settings.broker.removeprefix("redis+")).path
    assert f"/{socket}" == str(broker_socket(settings.state_dir)), "as kombu's Redis transport reads it"


def test_the_broker_s_socket_lies_in_the_state_directory_or_where_its_path_is_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert broker_socket(Path("/var/lib/photochrom")) == Path("/var/lib/photochrom/broker/valkey.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    longest = Path("/" + "x" * (SOCKET_PATH_MAX_BYTES - len("/broker/valkey.sock") - 1))
    assert len(os.fsencode(broker_socket(longest))) == SOCKET_PATH_MAX_BYTES
    assert broker_socket(longest).is_relative_to(longest)
    umlauts = Path("/" + "ü" * 60)
    short = broker_socket(umlauts)
    assert short.is_relative_to("/run/user/7") and short.name == "valkey.sock"
    assert short == broker_socket(umlauts) != broker_socket(Path("/" + "ü" * 61))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "r" * 120)
    assert len(os.fsencode(broker_socket(umlauts))) <= SOCKET_PATH_MAX_BYTES


def test_every_setting_says_what_it_is() -> None:
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undescribed in ([], ["log_level"])
