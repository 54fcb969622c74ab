"""`photochrom selftest --root DIR`: what a share can do, tried there. The one command that writes into a root."""

import dataclasses
import errno
import fcntl
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from daemon import roots
from daemon.intake import has_writer, ignore_lease_signals
from daemon.questions import as_json
from worker.errors import ExitCode, PhotochromError, RootMissing
from worker.files import Stamp
from worker.json_output import print_json
from worker.mounts import mount_of
from worker.settings import RootSettings, Settings, load

#: how long an event may be under way
EVENT_S: Final = 3.0
SKEW_S: Final = 2.0
INOTIFY_WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One thing that was tried.

    Attributes:
        what: was tried.
        works: None when it does not apply here.
        says: what was seen, and what follows from it.
        needed: without it the folder cannot be watched at all.
    """

    what: str
    works: bool | None
    says: str
    needed: bool = False


class _Ears(FileSystemEventHandler):
    """Hears of changes below a folder, if the file system tells."""

    def __init__(self, folder: Path) -> None:
        self._heard = threading.Event()
        self._observer = Observer()
        self._observer.schedule(self, str(folder), recursive=True)
        self._observer.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog's thread."""
        if event.event_type not in {"opened", "closed_no_write"}:
            self._heard.set()

    def hears(self, act: Callable[[], object]) -> bool:
        """Whether an act is heard of."""
        time.sleep(0.1)  # what came before is over
        self._heard.clear()
        act()
        return self._heard.wait(EVENT_S)

    def close(self) -> None:
        self._observer.stop()
        self._observer.join()


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
    try:
        own.mkdir()
    except OSError as error:
        raise PhotochromError(
            f"Nothing can be written to {folder} ({error.strerror}), so it cannot be tried out. A root may be "
            "read-only, watching works all the same; to try it, run this once where the share may be written."
        ) from error
    try:
        return list(_trials(folder, own, settings))
    finally:
        shutil.rmtree(own)


def _trials(folder: Path, own: Path, settings: Settings) -> Iterator[Trial]:
    yield _canary(own)
    yield _replaced(own)
    yield from _events(folder, own, settings)
    yield _slow_writer(own)
    yield _locks(own)
    yield _clock(own)
    free = shutil.disk_usage(folder).free
    yield Trial("free space", free > 1 << 30, f"{free >> 20} MiB free")
    yield _watches(folder)


def _canary(own: Path) -> Trial:
    written = secrets.token_bytes(1 << 16)
    (own / "canary").write_bytes(written)
    (own / "canary").rename(own / "renamed")
    same = (own / "renamed").read_bytes() == written and not (own / "canary").exists()
    return Trial(
        "write, rename, read", same, "the same bytes came back" if same else "other bytes came back", needed=True
    )


def _replaced(own: Path) -> Trial:
    """New content under an old name must be seen in the stamp, or it would never be taken."""
    file, new = own / "replaced", own / "new"
    file.write_bytes(b"old!")
    before = Stamp.of(file.stat())
    new.write_bytes(b"new!")
    new.replace(file)
    seen = Stamp.of(file.stat()) != before
    return Trial("replaced file", seen, "is seen by its stamp" if seen else "looks the same as before", needed=True)


def _events(folder: Path, own: Path, settings: Settings) -> Iterator[Trial]:
    root = next((root for root in settings.watched if root.path == folder), RootSettings(path=folder, output=folder))
    mount = mount_of(folder)
    mode = roots.watch_mode(root, mount)
    try:
        ears = _Ears(own)
    except OSError as error:
        yield Trial("events", False, f"cannot be had: {error.strerror}; the folder is scanned instead")
    else:
        try:
            for what, act in (("created", lambda: (own / "seen").write_bytes(b"1")),
                              ("changed", lambda: (own / "seen").write_bytes(b"22")),
                              ("renamed", lambda: (own / "seen").rename(own / "moved"))):  # fmt: skip
                heard = ears.hears(act)
                yield Trial(f"event: {what}", heard, "heard" if heard else "not heard; scans find it")
        finally:
            ears.close()
    every = f"a scan every {settings.scan_interval_s:g} s"
    says = f"events at once, and {every}" if mode == "events" else every
    settle_s = roots.settle_time_s(root, mount, settings)
    yield Trial(
        "mode", True, f"{mode}: {says}; settled after {settle_s:g} s ({mount.fs_type or 'unknown'} file system)"
    )


def _slow_writer(own: Path) -> Trial:
    """Can we see that somebody has a file open for writing?"""
    with (own / "slow").open("wb") as writer, (own / "slow").open("rb") as reader:
        writer.write(b"half")
        writer.flush()
        seen = has_writer(reader.fileno())
    with (own / "slow").open("rb") as reader:
        seen = seen and not has_writer(reader.fileno())
    return Trial("open for writing", seen, "is seen" if seen else "is not seen here: the settle time alone decides")


def _locks(own: Path) -> Trial:
    with (own / "lock").open("wb") as first, (own / "lock").open("wb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Trial("locks", None, f"there are none ({error.strerror}); none are needed in a root")
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                return Trial("locks", True, "hold")
        return Trial("locks", None, "do not hold; none are needed in a root")


def _clock(own: Path) -> Trial:
    before = time.time()
    (own / "clock").write_bytes(b"1")
    skew_s = (own / "clock").stat().st_mtime - (before + time.time()) / 2
    well = abs(skew_s) <= SKEW_S
    return Trial(
        "clock", well, f"the share's differs by {skew_s:+.1f} s" + ("" if well else "; settling does not use it")
    )


def _watches(folder: Path) -> Trial:
    try:
        limit = int(INOTIFY_WATCHES.read_text())
    except (OSError, ValueError):
        return Trial("inotify limit", None, "there is none on this system")
    needed = sum(len(folders) for _, folders, _ in os.walk(folder)) + 1
    says = f"{limit} watches, {needed} folders"
    enough = limit > 2 * needed
    return Trial("inotify limit", enough, says if enough else f"{says}: raise fs.inotify.max_user_watches")


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
