"""`why PATH`: one true sentence about any path."""

import dataclasses
import datetime as dt
import errno
import os
import stat

import sqlalchemy as sa
from sqlalchemy.orm import Session

from daemon import batch_report, scan
from worker import curated, files, training_runs, twins
from worker.files import Stamp
from worker.names import owner_of_temporary
from worker.overview import database_time
from worker.settings import Settings
from worker.tables import FileState, Job, JobState, Root, RootState, SourceFile, absolute, display


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is known of a path.

    Attributes:
        path: absolute, as asked for.
        state: the job's or the file's state, or `outside`, `offline`, `folder`, `missing`, `unseen`, `derivative`,
            `report`, `temporary`.
        sentence: for a person.
        job_id: its job, if it has one.
    """

    path: str
    state: str
    sentence: str
    job_id: int | None = None


def why(session: Session, settings: Settings, path: bytes) -> Explanation:
    """Explain a path.

    Args:
        session: a reading session.
        settings: those in force, for the roots to be watched.
        path: absolute or relative to the current directory; need not exist.
    """
    full = os.path.join(
        os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(os.path.abspath(path))
    )
    below = _root_of(session, settings, full)
    if below is None:
        return _outside(session, settings, full)
    name, root_path, relative = below
    root = session.get(Root, name)
    row = files.by_path(session, name, relative)
    if root is not None and root.state is RootState.OFFLINE:
        return _say(full, "offline", f"The watched folder {display(root_path)} is offline: {root.reason}", row)
    seen = _look_at(full)
    is_folder = isinstance(seen, os.stat_result) and stat.S_ISDIR(seen.st_mode)
    if pattern := scan.ignored_path(relative, root_path, directory=is_folder):
        return _say(full, FileState.IGNORED, f"Ignored by the name pattern {pattern}{_but_a_job(session, row)}.", row)
    if isinstance(seen, OSError):
        return _say(full, FileState.BLOCKED, f"Blocked by {_errno(seen)}: it cannot even be looked at.", row)
    unfit = _not_a_file(full, seen, row)
    if unfit is not None:
        return unfit
    if row is None or (row.state is FileState.VANISHED and seen is not None):
        return _unseen(full, root_path, relative, root, settings)
    return _recorded(session, settings, full, seen, row)


def _recorded(
    session: Session, settings: Settings, full: bytes, seen: os.stat_result | None, row: SourceFile
) -> Explanation:
    """What the record says of a file, and what happened to it since."""
    job = session.get(Job, row.job_id) if row.job_id is not None and row.state is FileState.SUBMITTED else None
    if job is None and (photo := curated.by_file(session, row.id)) is not None and row.state is FileState.SUBMITTED:
        return _say(full, photo.state, f"Curated photo {photo.id}, {photo.state}: {photo.reason}.", row)
    if job is None:
        return _say(full, row.state, f"{_FILE[row.state]} since {_at(row.since)}: {row.reason}", row)
    sentence = _job_sentence(session, settings, job) + _since_then(seen, row)
    return _say(full, job.state, sentence, row)


_FILE = {
    FileState.SETTLING: "Waiting to settle",
    FileState.BLOCKED: "Blocked",
    FileState.IGNORED: "Ignored",
    FileState.VANISHED: "Gone",
    FileState.SUBMITTED: "Submitted",
}


def _say(path: bytes, state: str, sentence: str, row: SourceFile | None = None) -> Explanation:
    return Explanation(
        path=display(path), state=str(state), sentence=sentence, job_id=row.job_id if row is not None else None
    )


def _root_of(session: Session, settings: Settings, full: bytes) -> tuple[str, bytes, bytes] | None:
    """Name and path of the root that a path lies in, and the path below it."""
    roots = {root.key: os.fsencode(root.path) for root in settings.all_roots}
    roots |= {root.name: root.path for root in session.scalars(sa.select(Root)) if root.name not in roots}
    for name, path in roots.items():
        real = os.path.realpath(path)
        if full == real:
            return name, path, b""
        if full.startswith(real.rstrip(b"/") + b"/"):
            return name, path, os.path.relpath(full, real)
    return None


def _outside(session: Session, settings: Settings, full: bytes) -> Explanation:
    """A derivative of ours, or nothing that we know of."""
    for root in session.scalars(sa.select(Root)):
        real = os.path.realpath(root.output)
        if not full.startswith(real.rstrip(b"/") + b"/"):
            continue
        if (own := _own_file(session, full, os.path.relpath(full, real))) is not None:
            return own
        full = full.removesuffix(b".json")  # a sidecar is explained as its derivative is
        job = session.scalars(
            sa.select(Job)
            .where(
                Job.root == root.name, Job.output_path == os.path.relpath(full, real), Job.output_sha256.is_not(None)
            )
            .order_by(Job.id.desc())
            .limit(1)
        ).one_or_none()
        if job is not None:
            master = display(absolute(root.path, job.path))
            sentence = f"The derivative of {master} by model {job.model_version} (job {job.id}, {_words(job.state)})."
            sentence += _if_lost(full)
            return Explanation(path=display(full), state="derivative", sentence=sentence, job_id=job.id)
    watched = ", ".join(str(root.path) for root in settings.watched)
    return _say(full, "outside", f"Unknown: it lies outside every watched folder ({watched}).")


def _own_file(session: Session, full: bytes, relative: bytes) -> Explanation | None:
    """What Photochrom itself writes into an output beside derivatives and sidecars."""
    *folders, name = relative.split(b"/")
    if (owner := owner_of_temporary(name)) is not None and _look_at(full) is not None:
        job = session.get(Job, int(owner)) if owner.isdigit() and len(owner) < 19 else None
        whose = (
            f"job {job.id} ({job.display_path}, {_words(job.state)})"
            if job is not None
            else "`photochrom colorize`, or a report"
        )
        return _say(full, "temporary", f"A file under work of {whose}; one that a dead worker left goes after a day.")
    if len(folders) == 1 and name in {batch_report.NAME + b".txt", batch_report.NAME + b".json"} and _is_report(full):
        return _say(full, "report", f"The report of Photochrom on the batch {display(folders[0])}.")
    return None


def _is_report(path: bytes) -> bool:
    if _look_at(path) is None:
        return False
    try:
        fd = os.open(os.path.splitext(path)[0] + b".json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        return batch_report.FORMAT.encode() in file.read(1 << 12)


def _look_at(path: bytes) -> os.stat_result | OSError | None:
    """How a path looks now; None when nothing is there."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error


def _not_a_file(full: bytes, seen: os.stat_result | None, row: SourceFile | None) -> Explanation | None:
    """Why a path is nothing that could be taken, by how it looks now."""
    if seen is None:
        missing = "There is no such file, and the record knows none."
        return _say(full, "missing", missing) if row is None else None
    if stat.S_ISDIR(seen.st_mode):
        if row is not None and row.state is FileState.BLOCKED:
            return None  # the watcher could not list it
        return _say(full, "folder", "It is a folder; ask about a file in it, or see `photochrom status`.")
    if not stat.S_ISREG(seen.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(seen.st_mode) else "a fifo, socket or device"
        return _say(full, FileState.IGNORED, f"Ignored: it is {kind}; only regular files are taken.")
    return None


def _unseen(full: bytes, root_path: bytes, relative: bytes, root: Root | None, settings: Settings) -> Explanation:
    if (closed := _unlistable(root_path, relative)) is not None:
        return _say(full, FileState.BLOCKED, closed)
    if root is None or root.scanned_at is None:
        return _say(full, "unseen", "Not seen yet: its folder has not been scanned. Is `photochrom up` running?")
    return _say(
        full,
        "unseen",
        f"Not seen yet: the last scan of its folder ended {_at(root.scanned_at)}; "
        f"one comes every {settings.scan_interval_s:g} s while `photochrom up` or `watch` runs.",
    )


def _unlistable(root_path: bytes, relative: bytes) -> str | None:
    """Which folder on the way to a file no scan can see into, and why."""
    folder = root_path
    for name in (b"", *relative.split(b"/")[:-1]):
        folder = os.path.join(folder, name) if name else folder
        try:
            os.scandir(folder).close()
        except OSError as error:
            how = "grant the right to read it" if error.errno in {errno.EACCES, errno.EPERM} else "check its disk"
            return f"Blocked by {_errno(error)}: no scan sees into its folder {display(folder)}; {how}."
    return None


def _errno(error: OSError) -> str:
    return f"{errno.errorcode.get(error.errno or 0, '?')} ({error.strerror})"


def _but_a_job(session: Session, row: SourceFile | None) -> str:
    """What else is to be said of an ignored file: it may have been submitted before the pattern was written."""
    job = session.get(Job, row.job_id) if row is not None and row.job_id is not None else None
    return f", but it was submitted before that: job {job.id} is {_words(job.state)}" if job is not None else ""


def _since_then(seen: os.stat_result | None, row: SourceFile) -> str:
    """What happened to a scan after its job was recorded, and is not in the record yet."""
    if seen is None:
        return " The scan itself is not there any more; the watcher has not looked yet."
    if Stamp.of(seen) != Stamp(row.size_bytes, row.mtime_ns, row.ctime_ns, row.inode):
        return " The scan was changed or touched after that; the watcher has not looked yet."
    return ""


def _if_lost(derivative: bytes) -> str:
    return " It is not there now: moved, deleted, or its disk is not mounted." if _look_at(derivative) is None else ""


def _words(state: JobState) -> str:
    return state.replace("_", " ")


def _job_sentence(session: Session, settings: Settings, job: Job) -> str:
    """What became of a job."""
    if job.state is JobState.QUEUED:
        return _queued(session, settings, job)
    if job.state is JobState.RUNNING:
        return f"Being coloured since {_at(job.started_at)} by {job.worker} on {job.device}."
    if job.output_path is not None and job.state in _PUBLISHED:
        output = session.get_one(Root, job.root).output
        return (
            f"{_PUBLISHED[job.state]} at {_at(job.finished_at)} by model {job.model_version}: "
            f"{job.display_output_path} (sha256 {job.output_sha256}). {job.reason}"
        ).rstrip() + _if_lost(absolute(output, job.output_path))
    if job.state is JobState.SKIPPED:
        return f"Skipped at {_at(job.finished_at)}: {job.reason}"
    if job.state is JobState.QUARANTINED:
        return (
            f"Quarantined at {_at(job.finished_at)} after {job.claim_no} attempts: {job.reason} "
            f"Repair or replace the file, or run `photochrom retry {job.id}`."
        )
    return f"Superseded: {job.reason}"


_PUBLISHED = {
    JobState.DONE: "Done",
    JobState.NEEDS_REVIEW: "Published, but needs review,",
    JobState.DUPLICATE: "Published as a copy",
}


def _queued(session: Session, settings: Settings, job: Job) -> str:
    if job.not_before is not None and job.not_before > database_time(session):
        return f"Waits until {_at(job.not_before)}, attempt {job.claim_no + 1}. {job.reason}"
    root = session.get(Root, job.root)
    if root is not None and root.reason:  # paused, or offline
        return f"Waits in the queue since {_at(job.created_at)}. {root.reason}"
    if settings.retrain_pauses_colouring and training_runs.under_way(session):
        return f"Waits in the queue since {_at(job.created_at)} for the training run that is under way."
    if (elder := twins.elder_of(session, job)) is not None:
        return (
            f"Waits in the queue since {_at(job.created_at)} for job {elder.id} ({elder.display_path}, "
            f"{_words(elder.state)}), which has the same bytes: its derivative will be copied."
        )
    before = session.scalar(
        sa.select(sa.func.count(Job.id)).where(
            Job.state == JobState.QUEUED,
            sa.or_(Job.priority < job.priority, sa.and_(Job.priority == job.priority, Job.id < job.id)),
        )
    )
    return f"Waits in the queue since {_at(job.created_at)}, {before} before it. {job.reason}".rstrip()


def _at(time: dt.datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC") if time is not None else "an unknown time"
