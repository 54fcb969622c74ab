"""`why PATH`: one true sentence about any path."""

import errno
import os
import stat
import sys

import sqlalchemy as sa
from sqlalchemy.orm import Session

from daemon import scan
from daemon.batches import Gate
from daemon.explain_job import job_sentence
from daemon.explain_output import outside
from daemon.explanation import Explanation, at, error_words, explained, look_at, state_words
from daemon.ignoring import Ignored
from worker import curated, files, identity
from worker.answers import real_path
from worker.files import Stamp
from worker.jobs import OPEN
from worker.mounts import share_away
from worker.overview import database_time
from worker.settings import Settings
from worker.tables import FileState, Job, Root, RootState, SourceFile, absolute, display


def why(session: Session, settings: Settings, path: bytes) -> Explanation:
    """Explain a path.

    Args:
        session: a reading session.
        settings: those in force, for the roots to be watched.
        path: absolute or relative to the current directory; need not exist.
    """
    full = _absolute(path)
    below = _root_of(session, settings, full)
    if below is None:
        return outside(session, settings, full)
    name, root_path, relative = below
    root = session.get(Root, name)
    row = files.by_path(session, name, relative)
    if root is not None and root.state is RootState.OFFLINE:
        offline = f"The watched folder {display(root_path)} is offline: {root.reason}"
        return explained(full, "offline", offline + _unwatched(session, name), row)
    seen = look_at(full)
    is_folder = isinstance(seen, os.stat_result) and stat.S_ISDIR(seen.st_mode)
    if not isinstance(seen, TimeoutError) and (pattern := scan.ignored_path(relative, root_path, directory=is_folder)):
        return explained(
            full, FileState.IGNORED, f"Ignored by the name pattern {pattern}{_but_a_job(session, row)}.", row
        )
    if isinstance(seen, OSError):
        return explained(full, FileState.BLOCKED, f"Blocked by {error_words(seen)}: it cannot even be looked at.", row)
    unfit = _not_a_file(full, seen, row)
    if unfit is not None:
        return (_batch(session, settings, full, name, relative) if is_folder else None) or unfit
    if row is None or (row.state is FileState.VANISHED and seen is not None):
        return _unseen(full, root_path, relative, root, settings)
    return _recorded(session, settings, full, seen, row)


def _absolute(path: bytes) -> bytes:
    """Without links in the folders that lead to it, as the system goes through them; its own name may be a link's."""
    folder, name = os.path.split(path.rstrip(b"/") or b"/")
    if name in (b"", b".", b".."):
        return real_path(path)
    return os.path.join(real_path(folder), name)


def _recorded(
    session: Session, settings: Settings, full: bytes, seen: os.stat_result | None, row: SourceFile
) -> Explanation:
    """What the record says of a file, and what happened to it since."""
    job = session.get(Job, row.job_id) if row.job_id is not None and row.state is FileState.SUBMITTED else None
    if job is None and (photo := curated.by_file(session, row.id)) is not None and row.state is FileState.SUBMITTED:
        return explained(full, photo.state, f"Curated photo {photo.id}, {photo.state}: {photo.reason}.", row)
    if job is None:
        sentence = f"{_FILE[row.state]} since {at(row.since)}: {row.reason}"
        if row.state is FileState.VANISHED:
            return explained(full, row.state, sentence, row)
        gone = _since_then(session, seen, row) if seen is None else ""
        waits = row.state in {FileState.SETTLING, FileState.BLOCKED}
        return explained(full, row.state, sentence + gone + (_unwatched(session, row.root) if waits else ""), row)
    sentence = job_sentence(session, settings, job) + _since_then(session, seen, row)
    return explained(full, job.state, sentence + (_unwatched(session, row.root) if job.state in OPEN else ""), row)


def _unwatched(session: Session, name: str) -> str:
    """What holds up everything in a folder, and makes what was recorded of it old: that no watcher is there."""
    root = session.get(Root, name)
    if root is None or files.is_watched(root, database_time(session)):
        return ""
    return " But nobody watches its folder now: start `photochrom up` or `photochrom watch`."


_FILE = {
    FileState.SETTLING: "Waiting to settle",
    FileState.BLOCKED: "Blocked",
    FileState.IGNORED: "Ignored",
    FileState.VANISHED: "Gone",
    FileState.SUBMITTED: "Submitted",
}


def _root_of(session: Session, settings: Settings, full: bytes) -> tuple[str, bytes, bytes] | None:
    """Name and path of the root that a path lies in, and the path below it."""
    roots = {root.key: os.fsencode(root.path) for root in settings.all_roots}
    roots |= {root.name: root.path for root in session.scalars(sa.select(Root)) if root.name not in roots}
    for name, path in roots.items():
        real = real_path(path)
        if full == real:
            return name, path, b""
        if full.startswith(real.rstrip(b"/") + b"/"):
            return name, path, os.path.relpath(full, real)
    return None


def _not_a_file(full: bytes, seen: os.stat_result | None, row: SourceFile | None) -> Explanation | None:
    """Why a path is nothing that could be taken, by how it looks now."""
    if seen is None:
        missing = "There is no such file, and the record knows none."
        return explained(full, "missing", missing) if row is None else None
    if stat.S_ISDIR(seen.st_mode):
        if row is not None and row.state is FileState.BLOCKED:
            return None  # the watcher could not list it
        return explained(full, "folder", "It is a folder; ask about a file in it, or see `photochrom status`.")
    if not stat.S_ISREG(seen.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(seen.st_mode) else "a fifo, socket or device"
        return explained(full, FileState.IGNORED, f"Ignored: it is {kind}; only regular files are taken.")
    return None


def _batch(session: Session, settings: Settings, full: bytes, name: str, relative: bytes) -> Explanation | None:
    """What a folder that is taken as a whole lacks, by a look at it: all of it, where its files name the first few."""
    root = next((root for root in settings.all_roots if root.key == name and root.batch), None)
    if root is None or not relative or b"/" in relative:
        return None
    session.rollback()  # reading it may take long, and needs no transaction
    try:
        lack = Gate(root, settle_s=0.0, named=sys.maxsize).lack(relative)
    except OSError as error:
        lack = f"It cannot be read: {error_words(error)}."
    if lack:
        return explained(full, "folder", f"It is a folder that is taken as a whole; what comes into it waits. {lack}")
    return explained(full, "folder", "It is a folder that is taken as a whole, and complete; ask about a file in it.")


def _unseen(full: bytes, root_path: bytes, relative: bytes, root: Root | None, settings: Settings) -> Explanation:
    if (closed := _unlistable(root_path, relative)) is not None:
        return explained(full, FileState.BLOCKED, closed)
    if root is None or root.scanned_at is None:
        return explained(full, "unseen", "Not seen yet: its folder has not been scanned. Is `photochrom up` running?")
    return explained(
        full,
        "unseen",
        f"Not seen yet: the last scan of its folder ended {at(root.scanned_at)}; "
        f"one comes every {settings.scan_interval_s:g} s while `photochrom up` or `watch` runs.",
    )


def _unlistable(root_path: bytes, relative: bytes) -> str | None:
    """Which folder on the way to a file no scan can see into, and why."""
    below = b""
    for name in (b"", *relative.split(b"/")[:-1]):
        below = os.path.join(below, name)
        folder = os.path.join(root_path, below) if below else root_path
        try:
            os.scandir(folder).close()
            Ignored(root_path, below)
        except OSError as error:
            how = "grant the right to read it" if error.errno in {errno.EACCES, errno.EPERM} else "check its disk"
            return f"Blocked by {error_words(error)}: no scan sees into its folder {display(folder)}; {how}."
    return None


def _but_a_job(session: Session, row: SourceFile | None) -> str:
    """What else is to be said of an ignored file: it may have been submitted before the pattern was written."""
    job = session.get(Job, row.job_id) if row is not None and row.job_id is not None else None
    return f", but it was submitted before that: job {job.id} is {state_words(job.state)}" if job is not None else ""


def _since_then(session: Session, seen: os.stat_result | None, row: SourceFile) -> str:
    """What happened to a scan after its job was recorded, and is not in the record yet."""
    if seen is None:
        root = session.get_one(Root, row.root)
        if share := share_away(root.path, row.path, identity.shares_of(session, row.root)):
            return f" The scan lies on {display(absolute(root.path, share))}, which is not mounted now."
        return " The scan itself is not there any more; the watcher has not looked yet."
    if Stamp.of(seen) != Stamp(row.size_bytes, row.mtime_ns, row.ctime_ns, row.inode):
        return " The scan was changed or touched after that; the watcher has not looked yet."
    return ""
