"""What a share can do, tried in a folder of our own on it: the trials of `photochrom selftest`."""

import dataclasses
import errno
import fcntl
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from daemon import roots
from daemon.intake import has_writer
from daemon.stability import StabilityTracker
from worker.answers import real_path
from worker.files import Stamp
from worker.mounts import is_within, mount_of
from worker.settings import RootSettings, Settings

#: how long an event may be under way
EVENT_S: Final = 3.0
SKEW_S: Final = 2.0
#: of the slow write: its steps, and the pause after each, for file systems that count time coarsely
STEPS: Final = 4
PAUSE_S: Final = 0.25
INOTIFY_WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")
#: capabilities(7); the kernel asks for it in its first user namespace, whatever a container grants within its own
CAP_LEASE: Final = 28
EVERY_USER: Final = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Trial:
    """One thing that was tried.

    Attributes:
        what: was tried.
        works: None when it does not apply here.
        says: what was seen, and what follows from it.
        needed: without it the folder cannot be watched at all; where it is None, it could not be tried.
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


def all_trials(folder: Path, own: Path, settings: Settings) -> Iterator[Trial]:
    """Try everything; what the system refuses is a finding and no reason to stop.

    Args:
        folder: a root, on the share.
        own: an empty folder of ours below it.
        settings: those in force.
    """
    yield from _place(folder, settings)
    yield from _tried("write, rename, read", lambda: [_canary(own)])
    yield from _tried("replaced file", lambda: [_replaced(own)])
    yield from _tried("events", lambda: _events(folder, own, settings))
    yield from _tried("slow write", lambda: [_slow_write(own)])
    yield from _tried("open for writing", lambda: [_slow_writer(own)])
    yield from _tried("locks", lambda: [_locks(own)])
    yield from _tried("clock", lambda: [_clock(own)])
    yield from _tried("free space", lambda: [_space(folder)])
    yield from _tried("inotify limit", lambda: [_watches(folder)])


def _place(folder: Path, settings: Settings) -> Iterator[Trial]:
    """A root may not lie in what Photochrom writes, nor the other way round."""
    real = os.path.realpath(folder)
    written = [("state directory", settings.state_dir), *(("output folder", root.output) for root in settings.watched)]
    for what, path in written:
        other = os.path.realpath(path)
        if is_within(real, other) or is_within(other, real):
            yield Trial(
                "place", False, f"it and the {what} {path} lie in each other: choose another folder", needed=True
            )


def _tried(what: str, trial: Callable[[], Iterable[Trial]]) -> Iterator[Trial]:
    try:
        yield from trial()
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:  # a full share can be watched all the same
            says = f"the share is full: {code} ({error.strerror}). Free some space, then try it again"
            yield Trial(what, None, says, needed=True)
            return
        yield Trial(what, False, f"the share refuses it: {code} ({error.strerror})", needed=True)


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
    real = _real(folder)  # it may be named by a link, or be a folder in a root; another root may not answer
    ours = (root for root in settings.watched if is_within(real, _real(root.path)))
    root = next(ours, RootSettings(path=folder, output=folder))
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


def _real(folder: Path) -> str:
    return os.fsdecode(real_path(os.fsencode(folder)))


def _slow_write(own: Path) -> Trial:
    """A copy in steps with pauses, as the watcher sees it: settling has to wait for each step, and then to end.

    The tracker's clock is made up, so that a slow share or a busy machine decides nothing.
    """
    tracker, now_s, too_early = StabilityTracker(settle_s=1.0), 0.0, False

    def look(after_s: float) -> bool:
        nonlocal now_s
        now_s += after_s
        tracker.observe(b"copy", Stamp.of((own / "copy").stat()), now_s)
        return tracker.is_quiet(b"copy", now_s)

    with (own / "copy").open("wb") as writer:
        for _ in range(STEPS):
            writer.write(secrets.token_bytes(1 << 12))
            writer.flush()
            os.fsync(writer.fileno())
            too_early |= look(0.75)  # shorter than the settle time, but two steps together are longer
            time.sleep(PAUSE_S)
    look(0.0)
    if too_early:
        advice = "copy under a name that ends in .part, then rename"
        return Trial("slow write", False, f"steps of a copy are not seen, so that it may be taken too early: {advice}")
    ended = look(1.0)
    says = f"settling waits for each of {STEPS} steps" if ended else "the file goes on changing after its last step"
    return Trial("slow write", ended, says)


def _slow_writer(own: Path) -> Trial:
    """Can we see that somebody has a file open for writing?"""
    with (own / "slow").open("wb") as writer, (own / "slow").open("rb") as reader:
        writer.write(b"half")
        writer.flush()
        seen = has_writer(reader.fileno())
    with (own / "slow").open("rb") as reader:
        seen = seen and not has_writer(reader.fileno())
    if not seen:
        return Trial("open for writing", False, "is not seen here: the settle time alone decides")
    if sees_every_writer():
        return Trial("open for writing", True, "is seen")
    return Trial(
        "open for writing", True,
        "is seen only for files of this user; for others' the settle time alone decides (it takes CAP_LEASE)",
    )  # fmt: skip


def sees_every_writer(proc: Path = Path("/proc/self")) -> bool:
    """Whether this process may ask who writes to other users' files too: only with CAP_LEASE, which root has."""
    try:
        status = (proc / "status").read_text()
        mapped = (proc / "uid_map").read_text().split()
    except OSError:
        return os.geteuid() == 0
    effective = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    return bool(effective >> CAP_LEASE & 1) and mapped[:3] == ["0", "0", str(EVERY_USER)]


def _space(folder: Path) -> Trial:
    free = shutil.disk_usage(folder).free
    return Trial("free space", free > 1 << 30, f"{free >> 20} MiB free")


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
