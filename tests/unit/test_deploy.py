"""What stands in deploy/ agrees with the program: verbs, options, settings, paths."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from daemon.broker import DURABILITY
from daemon.cli import main
from worker.settings import NOT_SETTINGS, PREFIX, RootSettings, Settings

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
VARIABLES = {PREFIX + name.upper() for name in Settings.model_fields} | NOT_SETTINGS


def _compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def _ours() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, service in _compose()["services"].items():
        if "build" in service:
            yield name, service


def _parses(arguments: list[str]) -> None:
    """Lets the program itself parse a command line, without running it."""
    context = click.Context(main, info_name="photochrom", **main.context_settings)  # a command keeps what it saw first
    verb, *options = arguments
    command = main.get_command(context, verb)
    assert command is not None, f"there is no verb {verb}"
    command.make_context(verb, list(options), parent=context)


def _lines(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def test_every_command_of_the_compose_file_is_one_of_ours() -> None:
    commands = {name: service["command"] for name, service in _ours()}
    assert {name: command[0] for name, command in commands.items()} == {
        name: name for name in ("migrate", "watch", "worker", "trainer", "beat")
    }
    for command in commands.values():
        _parses(command)
    for _, service in _ours():
        if check := service.get("healthcheck"):
            assert check["test"][:2] == ["CMD", "photochrom"]
            _parses(check["test"][2:])


def test_the_compose_file_sets_only_settings_that_exist() -> None:
    for name, service in _ours():
        assert set(service["environment"]) <= VARIABLES, name
    set_in_image = re.findall(r"\b(PHOTOCHROM_\w+)=", (DEPLOY / "Dockerfile").read_text())
    assert set_in_image
    assert set(set_in_image) <= VARIABLES


def test_originals_are_mounted_read_only_and_nobody_is_privileged() -> None:
    for name, service in _ours():
        folders = dict(volume.rsplit(":/", 1) for volume in service["volumes"])
        assert "scans:ro" in folders.values(), name
        assert {"curated:ro", "evaluation:ro", "base_photos:ro"} <= set(folders.values()), name
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service.get("cap_add", []) == (["LEASE"] if name == "watch" else [])
    for service in _compose()["services"].values():  # broker and database begin as root, and give that up
        assert service["security_opt"] == ["no-new-privileges:true"] and "privileged" not in service


def test_every_service_that_is_waited_for_has_a_health_check_or_ends() -> None:
    services = _compose()["services"]
    for service in services.values():
        for name, wish in service.get("depends_on", {}).items():
            healthy = wish["condition"] == "service_healthy"
            assert ("healthcheck" in services[name]) if healthy else services[name]["restart"] == "no"


def test_the_watch_image_has_no_tensorflow() -> None:
    locks = {name: service["build"].get("args", {}).get("LOCK") for name, service in _ours()}
    assert locks == {"migrate": "requirements-watch.lock", "watch": "requirements-watch.lock", "worker": None,
                     "trainer": None, "beat": "requirements-watch.lock"}  # fmt: skip


def test_training_is_asked_for_is_alone_and_comes_after_colouring() -> None:
    trainer = _compose()["services"]["trainer"]
    assert trainer["profiles"] == ["train"] and "scale" not in trainer and "deploy" not in trainer
    assert trainer["cpu_shares"] < 1024  # what a container has by default
    unit = DEPLOY / "systemd" / "photochrom-trainer.service"
    assert int(_lines(unit, "CPUWeight")[0]) < 100 and _lines(unit, "IOSchedulingClass") == ["idle"]
    assert _lines(unit, "InaccessiblePaths") == ["-/srv/scans -/srv/colorized"]


def test_folders_that_are_not_given_are_not_named_to_the_program() -> None:
    """A volume that compose makes for want of a folder is empty: a setting that names it would fail every run."""
    environment = _compose()["services"]["trainer"]["environment"]
    for name, folder in (("CURATED", "curated"), ("EVALUATION", "evaluation"), ("BASE_PHOTOS", "base_photos")):
        (value,) = (value for value in environment.values() if value.startswith(f"${{{name}:"))
        assert value == f"${{{name}:+/{folder}}}"
        (volume,) = (volume for volume in _compose()["services"]["trainer"]["volumes"] if f":/{folder}:" in volume)
        assert volume == f"${{{name}:-unused}}:/{folder}:ro"


def test_every_broker_keeps_its_messages_in_the_same_way() -> None:
    arguments = _compose()["services"]["broker"]["command"][1:]
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert given == {f"--{name}": value for name, value in DURABILITY.items()}


def test_what_the_image_copies_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = set(re.findall(r"^COPY (\S+) \S+$", text.replace("${LOCK}", "requirements.lock"), re.MULTILINE))
    assert {"daemon", "worker", "model", "migrations", "pyproject.toml", "requirements.lock"} == copied
    for name in copied:
        assert (REPOSITORY / name).exists()
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied - {"requirements.lock"}} <= set(allowed)
    for lock in re.findall(r"LOCK=(\S+\.lock)", text):
        assert (REPOSITORY / lock).is_file()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_unit_starts_a_verb_that_exists(unit: Path) -> None:
    starts = _lines(unit, "ExecStart") + _lines(unit, "ExecStartPre")
    assert starts
    for line in starts:
        program, *arguments = shlex.split(line)
        assert program == "/opt/photochrom/.venv/bin/photochrom"
        _parses(arguments)
    assert {line.partition("=")[0] for line in _lines(unit, "Environment")} <= VARIABLES


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_unit_is_confined(unit: Path) -> None:
    text = unit.read_text()
    for line in ("ProtectSystem=strict", "NoNewPrivileges=yes", "User=photochrom", "StateDirectoryMode=0700"):
        assert line in text
    # whoever watches has to see who writes to other users' files; whoever parses pictures alone needs nothing
    watches = unit.stem in {"photochrom-watch", "photochrom-up"}
    for key in ("CapabilityBoundingSet", "AmbientCapabilities"):
        assert _lines(unit, key) == (["CAP_LEASE"] if watches else [""])
    assert not any("scans" in line for line in _lines(unit, "ReadWritePaths"))
    assert int(_lines(unit, "TimeoutStopSec")[0]) > 15


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in (DEPLOY / "systemd").iterdir():  # the program is not installed where they say
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/photochrom/.venv/bin/photochrom", "/bin/true"))
    units = [str(path) for path in sorted(tmp_path.iterdir())]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in verified.stderr.splitlines() if str(tmp_path) in line or "photochrom" in line]
    assert (verified.returncode, complaints) == (0, [])


def _uncommented() -> dict[str, Any]:
    text = (DEPLOY / "photochrom.example.toml").read_text()
    return tomllib.loads(re.sub(r"^#(?=\w+ = |\[\[)", "", text, flags=re.MULTILINE))


def test_the_example_file_changes_nothing_and_names_every_setting_with_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tomllib.loads((DEPLOY / "photochrom.example.toml").read_text()) == {}
    named = _uncommented()
    (root,) = named.pop("roots")
    assert set(named) | {"roots"} == set(Settings.model_fields)
    assert set(root) == set(RootSettings.model_fields)
    RootSettings.model_validate(root)
    assert Settings(**named) == Settings()
