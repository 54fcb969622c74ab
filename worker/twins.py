"""Jobs about the same bytes: who waits for whom, whose derivative is copied, whose may be replaced."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from worker.db import after
from worker.tables import Job, JobState


def due(job: Any) -> sa.ColumnElement[bool]:
    """Its back-off, if any, is over (`job`: the table or an alias of it).

    A back-off begins with a claim. One that was claimed in the future shows that the clock was put back since, and that
    the end of its back-off means nothing any more.
    """
    return sa.or_(job.not_before.is_(None), job.not_before <= after(0), job.started_at > after(0))


def elder_twin() -> sa.Exists:
    """An earlier job with the same bytes that is about to give a derivative to copy."""
    elder = aliased(Job)
    return (
        sa.exists()
        .where(
            elder.source_sha256 == Job.source_sha256,
            elder.variant == Job.variant,
            elder.id < Job.id,
            _gives_soon(elder),
        )
        .correlate(Job)
    )


def elder_of(session: Session, job: Job) -> Job | None:
    """The job that a queued one waits for, if any: the first that `elder_twin` finds."""
    elder = aliased(Job)
    return session.scalars(
        sa.select(elder)
        .where(
            elder.source_sha256 == job.source_sha256,
            elder.variant == job.variant,
            elder.id < job.id,
            _gives_soon(elder),
        )
        .order_by(elder.id)
        .limit(1)
    ).one_or_none()


def _gives_soon(elder: Any) -> sa.ColumnElement[bool]:
    return sa.or_(elder.state == JobState.RUNNING, sa.and_(elder.state == JobState.QUEUED, due(elder)))


def twin_result(session: Session, job: Job) -> Job | None:
    """The first published derivative of the same bytes by the same model with the same parameters, of another path."""
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
    return next((twin for twin in candidates if twin.parameters == job.parameters), None)


def predecessor(session: Session, job: Job) -> Job | None:
    """The superseded job whose derivative this job's may replace: the last that the same file published."""
    return session.scalars(
        sa.select(Job)
        .where(
            Job.source_file_id == job.source_file_id,
            Job.variant == job.variant,
            Job.state == JobState.SUPERSEDED,
            Job.output_sha256.is_not(None),
        )
        .order_by(Job.id.desc())
        .limit(1)
    ).one_or_none()
