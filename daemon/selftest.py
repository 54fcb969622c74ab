"""`photochrom selftest --root DIR`: what a share can do, tried there. The one command that writes into a root."""

import contextlib
import dataclasses
import errno
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import click

from daemon.intake import ignore_lease_signals
from daemon.questions import as_json
from daemon.share_trials import Trial, all_trials
from worker.errors import ExitCode, PhotochromError, RootMissing
from worker.json_output import print_json
from worker.settings import Settings, load

#: our folder's name; nothing else is ever removed
_OWN: Final = re.compile(r"\.photochrom-selftest-[0-9a-f]{8}")
#: another selftest's folder is left alone for so long
LEFT_S: Final = 3600
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)


def try_out(folder: Path, settings: Settings) -> list[Trial]:
    """Try everything in a hidden folder of our own below `folder`, and remove it again.

    Raises:
        RootMissing: there is no such folder.
        PhotochromError: nothing can be written there; then it can be watched, but not tried out.
    """
    if not folder.is_dir():
        raise RootMissing(f"{folder} is no folder. Mount it, or name another with --root.")
    ignore_lease_signals()
    own = folder / f".photochrom-selftest-{secrets.token_hex(4)}"
    with _ending_orderly():
        try:
            _make(own)
            return [*_swept(folder, own), *all_trials(folder, own, settings)]
        finally:
            for number in (*_ENDS, signal.SIGINT):  # once is enough: it ends in a moment
                signal.signal(number, signal.SIG_IGN)
            if problem := _remove(own):
                click.echo(f"photochrom: {problem}", err=True)


def _make(own: Path) -> None:
    try:
        own.mkdir()
    except OSError as error:
        raise PhotochromError(
            f"Nothing can be written to {own.parent} ({error.strerror}), so it cannot be tried out. A root may be "
            "read-only, watching works all the same; to try it, run this once where the share may be written."
        ) from error


@contextlib.contextmanager
def _ending_orderly() -> Iterator[None]:
    """Signals that ask to end do so by an exception, so that nothing is left in a root."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.getsignal(number) for number in (*_ENDS, signal.SIGINT)}
    for number in _ENDS:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _swept(folder: Path, own: Path) -> Iterator[Trial]:
    """Remove what a selftest left that was killed; by the share's own clock."""
    try:
        now_s = own.stat().st_mtime
        with os.scandir(folder) as entries:
            left = [
                Path(entry.path) for entry in entries
                if _OWN.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
                and now_s - entry.stat(follow_symlinks=False).st_mtime > LEFT_S
            ]  # fmt: skip
    except OSError:  # the trials will tell
        return
    for old in left:
        problem = _remove(old)
        yield Trial("leftovers", not problem, problem or f"{old.name} of a selftest that was killed is removed")


def _remove(folder: Path) -> str:
    """Remove a folder of ours, as far as that goes; what is wrong if it is still there."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if os.path.lexists(folder):
            code = errno.errorcode.get(error.errno or 0, "?")
            return f"{folder} could not be removed ({code}: {error.strerror}). Remove it by hand; scans pass it over."
    return ""


@click.command()
@click.option("--root", type=click.Path(path_type=Path), required=True, help="The folder to try, on the share itself.")
@as_json
def selftest(root: Path, as_json: bool) -> None:
    """Try on a share of your own what works there: canary, rename, slow write, replace, lock, clock, space, events.

    It writes into a hidden folder of its own below DIR, and removes it again. Exits 6 when the share cannot be watched.
    """
    trials = try_out(Path(os.path.abspath(root)), load())
    if as_json:
        print_json([dataclasses.asdict(trial) for trial in trials])
    else:
        words = {True: "works  ", False: "FAILS  ", None: "absent "}
        for trial in trials:
            click.echo(f"{words[trial.works]} {trial.what}: {trial.says}")
    if any(trial.needed and not trial.works for trial in trials):
        sys.exit(ExitCode.BAD_ROOT)
