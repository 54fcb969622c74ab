"""`photochrom selftest --root DIR`: what a share can do, tried there. The one command that writes into a root."""

import contextlib
import dataclasses
import errno
import fcntl
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
from worker.answers import ask
from worker.errors import ExitCode, PhotochromError, RootMissing
from worker.json_output import print_json
from worker.mounts import mount_of
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
    _refuse_unlistable(folder)
    ignore_lease_signals()
    own = folder / f".photochrom-selftest-{secrets.token_hex(4)}"
    with _ending_orderly(), contextlib.ExitStack() as held:
        try:
            _make(own)
            held.enter_context(_locked(own))
            return [*_swept(folder, own), *all_trials(folder, own, settings)]
        finally:
            for number in (*_ENDS, signal.SIGINT):  # once is enough: it ends in a moment
                signal.signal(number, signal.SIG_IGN)
            if problem := _remove(own):
                click.echo(f"photochrom: {problem}", err=True)


def _refuse_unlistable(folder: Path) -> None:
    try:
        ask(folder, lambda: os.scandir(folder).close())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RootMissing(f"{folder} is no folder. Mount it, or name another with --root.") from error
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise RootMissing(
            f"{folder} cannot be listed ({code}: {error.strerror}), so it cannot be watched. Grant the right to "
            "read it, or check its disk."
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold a folder of ours, so that whoever finds it can tell whether its selftest still runs; False if it is held."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # there are file systems without locks
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


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
    """Remove what a selftest left that was killed, and tell of what may be another's that is under way."""
    try:
        now_s = own.stat().st_mtime  # by the share's own clock
        with os.scandir(folder) as entries:
            left = [
                (Path(entry.path), now_s - entry.stat(follow_symlinks=False).st_mtime) for entry in entries
                if _OWN.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False) and entry.name != own.name
            ]  # fmt: skip
    except OSError:  # the trials will tell
        return
    for old, age_s in left:
        if age_s <= LEFT_S and not _is_left(old):
            says = f"{old.name} is another selftest's; if that was killed, one that runs an hour after it removes it"
            yield Trial("leftovers", None, says)
            continue
        problem = _remove(old)
        yield Trial("leftovers", not problem, problem or f"{old.name} of a selftest that was killed is removed")


def _is_left(folder: Path) -> bool:
    """Whether nobody holds a folder of ours any more; not to be known on a share: each host may lock for itself."""
    try:
        with _locked(folder) as ours:
            return ours and not mount_of(folder).is_network
    except OSError:
        return False


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
# no click.Path, which looks at it: it may not answer
@click.option("--root", metavar="DIR", required=True, help="The folder to try, on the share itself.")
@as_json
def selftest(root: str, as_json: bool) -> None:
    """Try on a share of your own what works there: canary, rename, slow write, replace, lock, clock, space, events.

    It writes into a hidden folder of its own below DIR, and removes it again. Exits 6 when the share cannot be watched,
    1 when it could not be tried out: nothing can be written to it, or it is full.
    """
    trials = try_out(Path(os.path.abspath(root)), load())
    if as_json:
        print_json([dataclasses.asdict(trial) for trial in trials])
    else:
        words = {True: "works  ", False: "FAILS  ", None: "absent "}
        for trial in trials:
            word = "UNTRIED" if trial.needed and trial.works is None else words[trial.works]
            click.echo(f"{word} {trial.what}: {trial.says}")
    needed = {trial.works for trial in trials if trial.needed}
    if not needed <= {True}:
        sys.exit(ExitCode.BAD_ROOT if False in needed else ExitCode.FAILED)
