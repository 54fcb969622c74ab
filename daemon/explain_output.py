"""One true sentence about a path outside every watched folder: a derivative, what else is ours, or nothing of ours."""

import os
import stat
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.orm import Session

from daemon import batch_report
from daemon.explain_job import if_lost, not_there
from daemon.explanation import Explanation, explained, look_at, state_words
from worker.answers import real_path
from worker.jobs import PUBLISHED
from worker.names import SIDECAR_SUFFIX, owner_of_temporary
from worker.settings import Settings
from worker.tables import Job, Root, absolute, display


def outside(session: Session, settings: Settings, full: bytes) -> Explanation:
    """Explain a path in an output folder, in the state directory, or in none of ours.

    Args:
        session: a reading session.
        settings: those in force.
        full: absolute, its folder without links.
    """
    outputs = list(_outputs(session, full))
    for root, relative in outputs:
        if (own := _own_file(session, full, relative)) is not None:
            return own
        if (published := _published(session, root, full, relative, again=settings.sidecar)) is not None:
            return published
    for root, _ in outputs:
        return _unknown(full, root)
    state_dir = os.path.realpath(os.fsencode(settings.state_dir))
    if full == state_dir or full.startswith(state_dir + b"/"):
        return explained(full, "outside", f"It lies in Photochrom's own state directory ({display(state_dir)}).")
    watched = ", ".join(str(root.path) for root in settings.watched)
    return explained(full, "outside", f"Unknown: it lies outside every watched folder ({watched}).")


def _outputs(session: Session, full: bytes) -> Iterator[tuple[Root, bytes]]:
    """The roots in whose output folder a path lies, and the path below it; curated folders have none."""
    for root in session.scalars(sa.select(Root).where(Root.output != b"").order_by(Root.name)):
        real = real_path(root.output)
        if full == real or full.startswith(real.rstrip(b"/") + b"/"):
            yield root, os.path.relpath(full, real)


def _published(session: Session, root: Root, full: bytes, relative: bytes, *, again: bool) -> Explanation | None:
    """A derivative of the record, or the sidecar of one; `again`: whether sidecars are written now."""
    of = relative.removesuffix(SIDECAR_SUFFIX)
    if (job := publisher(session, root.name, relative)) is not None:
        what, lost = "The derivative", if_lost(root, job)
    elif of != relative and (job := publisher(session, root.name, of)):
        what = f"The sidecar of {job.display_output_path}, the derivative"
        lost = not_there(job) if look_at(full) is None else ""
        if lost and again and job.state in PUBLISHED and look_at(absolute(root.path, job.path)) is not None:
            lost += f" If it is lost, `photochrom retry {job.id}` makes it and the derivative again from the original."
    else:
        return None
    master = display(absolute(root.path, job.path))
    sentence = f"{what} of {master} by model {job.model_version} (job {job.id}, {state_words(job.state)}).{lost}"
    return Explanation(path=display(full), state="derivative", sentence=sentence, job_id=job.id)


def publisher(session: Session, root: str, path: bytes) -> Job | None:
    """The newest job that has published a derivative at a path below the output folder of a root."""
    query = sa.select(Job).where(Job.root == root, Job.output_path == path, Job.output_sha256.is_not(None))
    return max(session.scalars(query), key=lambda job: job.id, default=None)


def _unknown(full: bytes, root: Root) -> Explanation:
    """Something in an output folder that no job has made."""
    seen, output = look_at(full), display(root.output)
    if isinstance(seen, os.stat_result) and stat.S_ISDIR(seen.st_mode):
        of = display(root.path)
        return explained(full, "folder", f"It is a folder in {output}, where the derivatives of {of} go.")
    return explained(
        full,
        "outside",
        f"Unknown: it lies in the output folder {output}, and no derivative of the record has its name.",
    )


def _own_file(session: Session, full: bytes, relative: bytes) -> Explanation | None:
    """What Photochrom itself writes into an output beside derivatives and sidecars."""
    *folders, name = relative.split(b"/")
    if (owner := owner_of_temporary(name)) is not None and look_at(full) is not None:
        job = session.get(Job, int(owner)) if owner.isdigit() and len(owner) < 19 else None
        whose = (
            f"job {job.id} ({job.display_path}, {state_words(job.state)})"
            if job is not None
            else "`photochrom colorize`, or a report"
        )
        says = f"A file under work of {whose}; one that a dead worker left goes after a day."
        return explained(full, "temporary", says)
    if len(folders) == 1 and name in {batch_report.NAME + b".txt", batch_report.NAME + b".json"} and _is_report(full):
        return explained(full, "report", f"The report of Photochrom on the batch {display(folders[0])}.")
    return None


def _is_report(path: bytes) -> bool:
    if look_at(path) is None:
        return False
    try:
        fd = os.open(os.path.splitext(path)[0] + b".json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        return batch_report.FORMAT.encode() in file.read(1 << 12)
