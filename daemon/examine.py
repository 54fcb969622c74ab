"""What `photochrom doctor` looks at: each finding says what is well, or what to do."""

import dataclasses
import importlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from daemon import roots
from daemon.broker import check_broker
from worker.addresses import without_password
from worker.answers import ask
from worker.database_errors import in_words
from worker.db import opened
from worker.errors import ExitCode, PhotochromError
from worker.mounts import mount_of
from worker.settings import Settings, broker_socket

LOW_SPACE_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    says: str
    exit_code: int = ExitCode.OK


def all_findings(settings: Settings) -> list[Finding]:
    """Look at everything; nothing is changed. Settings that reach this point are well-formed already."""
    findings = [Finding("settings", True, "every name is known and in range")]
    findings += _folders(settings)
    for what, look in (("database", _database), ("broker", _broker), ("disk", _disk), ("weights", _weights),
                       ("versions", _versions)):  # fmt: skip
        findings.append(_finding(what, look, settings))
    return findings


def _finding(what: str, look: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(what, True, look(settings))
    except PhotochromError as error:
        return Finding(what, False, str(error), error.exit_code)
    except DBAPIError as error:
        told = in_words(error)
        return Finding(what, False, str(told), told.exit_code)


def _folders(settings: Settings) -> list[Finding]:
    faults = [Finding("folders", False, str(fault), fault.exit_code) for fault in roots.root_faults(settings)]
    if faults:
        return faults
    return [
        Finding(
            "folder", True, f"{root.path} → {root.output}, watched by {roots.watch_mode(root, mount)} ({mount.fs_type})"
        )
        for root in settings.watched
        for mount in [mount_of(root.path)]
    ]


def _database(settings: Settings) -> str:
    if not settings.database_url and not (settings.state_dir / "photochrom.db").is_file():
        return "not made yet; `photochrom up` makes it"
    with opened(settings.database):
        return f"{without_password(settings.database)} answers, its schema is this version's"


def _broker(settings: Settings) -> str:
    if not settings.broker_url and not broker_socket(settings.state_dir).exists():
        return "the embedded broker is not running; `photochrom up` starts it"
    check_broker(settings)
    return "answers"


def _disk(settings: Settings) -> str:
    low = []
    for folder in {settings.state_dir, *(root.output for root in settings.watched)}:
        try:
            there, free = ask(folder, partial(_free, folder))
        except TimeoutError as error:
            low.append(f"{folder} does not answer ({error.strerror}); look at its server and the network")
            continue
        if free < LOW_SPACE_BYTES:
            low.append(f"{there} has only {free >> 20} MiB free; free some space before large scans arrive")
    if low:
        raise PhotochromError(". ".join(sorted(low)) + ".")
    return f"more than {LOW_SPACE_BYTES >> 30} GiB free for outputs and state"


def _free(folder: Path) -> tuple[Path, int]:
    """The folder, or the first above it that is there, and the bytes that are free on its disk."""
    there = next(level for level in (folder, *folder.parents) if level.exists())
    return there, shutil.disk_usage(there).free


def _weights(_settings: Settings) -> str:
    return _if_installed("worker.commands", lambda module: module.examine_weights())


def _versions(settings: Settings) -> str:
    return _if_installed("worker.version_check", lambda module: module.examine_versions(settings))


def _if_installed(module: str, look: Callable[[Any], str]) -> str:
    # by string, as the verbs are: a host that only watches has no TensorFlow
    try:
        return look(importlib.import_module(module))
    except ImportError as error:
        return f"not looked at: {Path(error.name or '?').name} is not installed on this host, which can only watch"
