"""Jobs about the same bytes: who waits for whom, whose derivative is copied, whose may be replaced."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from worker.db import after
from worker.tables import Job, JobState, Root, RootState

#: where the report of a job that has not ended keeps the sha256 of what its derivative was about to replace
THERE: Final = "there"


def due(job: Any) -> sa.ColumnElement[bool]:
    """Its back-off, if any, is over (`job`: the table or an alias of it).

    A back-off begins with a claim. One that was claimed in the future shows that the clock was put back since, and that
    the end of its back-off means nothing any more.
    """
    return sa.or_(job.not_before.is_(None), job.not_before <= after(0), job.started_at > after(0))


def elder_twin() -> sa.ColumnElement[bool]:
    """Another job with the same bytes that is about to give a derivative to copy.

    One in the queue is an earlier one. One at work may be a later one, which began while the earlier one had to wait.
    """
    # asked for one state at a time, an index leaves out the twins that have ended, however many
    return sa.or_(*(sa.exists().where(gives).correlate(Job) for gives in _gives_soon(aliased(Job), Job)))


def elder_of(session: Session, job: Job) -> Job | None:
    """The job that a queued one waits for, if any: the first that `elder_twin` finds."""
    elder = aliased(Job)
    return session.scalars(
        sa.select(elder).where(sa.or_(*_gives_soon(elder, job))).order_by(elder.id).limit(1)
    ).one_or_none()


def _gives_soon(elder: Any, job: Any) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """A twin of a queued job is at work; or an earlier one is in the queue, of a folder that is there and has room."""
    same = sa.and_(elder.source_sha256 == job.source_sha256, elder.variant == job.variant)
    held = sa.select(Root.name).where(sa.or_(Root.state == RootState.OFFLINE, Root.reason != ""))
    waits = sa.and_(elder.state == JobState.QUEUED, elder.id < job.id, due(elder), elder.root.not_in(held))
    return sa.and_(same, elder.state == JobState.RUNNING), sa.and_(same, waits)


def twin_result(session: Session, job: Job, choices: Mapping[str, Any]) -> Job | None:
    """The first published derivative of the same bytes by the same model with the same choices, of another path.

    Args:
        session: a reading session.
        job: the one that may copy it.
        choices: how its folder's derivatives look; another folder's may look otherwise.
    """
    candidates = session.scalars(
        sa.select(Job)
        .where(
            Job.source_sha256 == job.source_sha256,
            Job.model_version == job.model_version,
            Job.state.in_({JobState.DONE, JobState.NEEDS_REVIEW}),
            Job.id != job.id,
        )
        .order_by(Job.id)
    )
    return next(
        (it for it in candidates if it.parameters == job.parameters and it.report.get("parameters") == choices), None
    )


def replaceable(session: Session, job: Job) -> set[str]:
    """The sha256 of each file that an attempt at this scan, or at its older content, may have left under its name.

    One that was killed before its rename left there what an earlier one had put there.
    """
    earlier = _earlier(session, job)
    return {sha for old in earlier for sha in (old.output_sha256, old.report.get(THERE)) if sha is not None}


def cut_short(session: Session, job: Job) -> list[int]:
    """Jobs about older content of the same scan that were at work when the new content came: somebody still may be."""
    older = (Job.source_file_id == job.source_file_id, Job.variant == job.variant, Job.state == JobState.SUPERSEDED)
    return list(session.scalars(sa.select(Job.id).where(*older, Job.lost > 0)))


def names_for(session: Session, job: Job, names: Sequence[bytes]) -> list[bytes]:
    """The names that a job's derivative may take, in order: first the one it, or the scan's older content, had before.

    A name that is another scan's by the record is none of them, even where the same bytes lie under it: when that scan
    gets new content, its derivative is replaced.
    """
    output = sa.select(Root.output).where(Root.name == job.root).scalar_subquery()
    others = (
        sa.select(Job.output_path)
        .join(Root, Root.name == Job.root)
        .where(Job.output_path.in_(names), Root.output == output, Job.state != JobState.SUPERSEDED)
        .where(sa.or_(Job.source_file_id != job.source_file_id, Job.variant != job.variant))
    )
    taken = {*session.scalars(others)} - {names[-1]}  # which carries the digits of the path
    had = [old.output_path for old in _earlier(session, job)]
    return sorted((name for name in names if name not in taken), key=lambda name: name not in had)


def outdated(session: Session, job: Job, name: bytes) -> dict[bytes, set[str]]:
    """Derivatives of a scan's older content under other names than its present one: path → sha256 that it may have.

    The scan had another kind then, or other choices held. A name that is another job's by the record is left out.
    """
    found = dict[bytes, set[str]]()
    # the job itself as it was claimed: what its row names now is about to be published
    for old in (job, *(it for it in _earlier(session, job) if it.state is JobState.SUPERSEDED)):
        if old.output_path is not None and old.output_path != name:
            had = {sha for sha in (old.output_sha256, old.report.get(THERE)) if sha is not None}
            found.setdefault(old.output_path, set()).update(had)
    return {path: had for path, had in found.items() if path in names_for(session, job, [path, b""])}


def _earlier(session: Session, job: Job) -> list[Job]:
    """The job and those before it, about older content of the same file, that were about to publish something."""
    same = (Job.source_file_id == job.source_file_id, Job.variant == job.variant, Job.output_sha256.is_not(None))
    before = sa.or_(Job.id == job.id, Job.state == JobState.SUPERSEDED)
    return list(session.scalars(sa.select(Job).where(*same, before)))
