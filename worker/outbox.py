"""The outbox: which queued jobs need a message now, and which messages are out."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from worker.db import after
from worker.tables import Job, JobState
from worker.twins import due, elder_twin


def anything_queued(session: Session) -> bool:
    """Is there any queued job? Asked often, and cheap."""
    return session.scalar(sa.select(Job.id).where(Job.state == JobState.QUEUED).limit(1)) is not None


def to_dispatch(session: Session, *, in_flight: int, broker_empty: bool, grace_s: float = 10) -> Sequence[Job]:
    """Jobs whose message should be sent now, most urgent and oldest first.

    That is: due and never sent; or sent, and the message is known to be lost. It is lost when the broker holds no
    message any more, or when a job of the same priority that was sent later has been claimed already.

    Args:
        session: any session.
        in_flight: most jobs that may be with the broker or a worker; the rest waits in the table.
        broker_empty: whether the queue holds no message.
        grace_s: seconds that any message may be under way.
    """
    overtaker = aliased(Job)
    overtaken = (
        sa.exists()
        .where(
            overtaker.state != JobState.QUEUED,
            overtaker.priority == Job.priority,
            overtaker.started_at >= overtaker.dispatched_at,
            overtaker.dispatched_at > Job.dispatched_at,
        )
        .correlate(Job)
    )
    lost = sa.and_(Job.dispatched_at < after(-grace_s), sa.true() if broker_empty else overtaken)
    flying = session.scalar(
        sa.select(sa.func.count())
        .select_from(Job)
        .where(
            sa.or_(
                Job.state == JobState.RUNNING,
                sa.and_(Job.state == JobState.QUEUED, Job.dispatched_at.is_not(None), ~lost),
            )
        )
    )
    room = max(0, in_flight - (flying or 0))
    return session.scalars(
        sa.select(Job)
        .where(Job.state == JobState.QUEUED, due(Job), sa.or_(Job.dispatched_at.is_(None), lost), ~elder_twin())
        .order_by(Job.priority, Job.id)
        .limit(room)
    ).all()


def mark_dispatched(session: Session, job_ids: Collection[int]) -> None:
    """Note that messages for these jobs are about to be sent."""
    session.execute(
        sa.update(Job).where(Job.id.in_(job_ids), Job.state == JobState.QUEUED).values(dispatched_at=after(0))
    )


def mark_undelivered(session: Session, job_ids: Collection[int]) -> None:
    """Note that these messages could not be sent after all."""
    session.execute(sa.update(Job).where(Job.id.in_(job_ids), Job.state == JobState.QUEUED).values(dispatched_at=None))
