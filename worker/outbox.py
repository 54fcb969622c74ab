"""The outbox: which queued jobs need a message now, and which messages are out."""

from collections.abc import Collection, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker.db import after
from worker.tables import Job, JobState, Root, RootState
from worker.twins import due, elder_twin

#: gray becomes RGB, which is three times as much; compressed masters may come out less compressed
BYTES_PER_BYTE: Final = 4
#: states of jobs that a worker may have claimed since they were sent
CLAIMED: Final = frozenset(JobState) - {JobState.QUEUED}
PAGE: Final = 1000


def anything_queued(session: Session) -> bool:
    """Is there any queued job? Asked often, and cheap."""
    return session.scalar(sa.select(Job.id).where(Job.state == JobState.QUEUED).limit(1)) is not None


def to_dispatch(
    session: Session, *, in_flight: int, broker_empty: bool, grace_s: float = 10, paused: Collection[str] = ()
) -> Sequence[Job]:
    """Jobs whose message should be sent now, most urgent and oldest first.

    That is: due and never sent; or sent, and the message is known to be lost. It is lost when the broker holds no
    message any more, or when a job of the same or a less urgent priority that was sent later has been claimed already.

    Args:
        session: any session.
        in_flight: most jobs that may be with the broker or a worker; the rest waits in the table.
        broker_empty: whether the queue holds no message.
        grace_s: seconds that any message may be under way.
        paused: names of roots whose jobs have to wait; those of offline roots wait anyway.
    """
    # sent in the future: the clock was put back since
    old = sa.or_(Job.dispatched_at < after(-grace_s), Job.dispatched_at > after(grace_s))
    lost = sa.and_(old, sa.true() if broker_empty else _overtaken(session))
    # counted one by one: each has an index, which a question for either would not use
    running = session.scalar(_count().where(Job.state == JobState.RUNNING)) or 0
    sent = session.scalar(_count().where(_is_out(), ~lost)) or 0
    room = in_flight - running - sent
    if room <= 0:
        return []
    next_ones = (
        sa.select(Job)
        .where(Job.state == JobState.QUEUED, due(Job), sa.or_(Job.dispatched_at.is_(None), lost), ~elder_twin())
        .order_by(Job.priority, Job.id)
        .limit(room)
    )
    # each root by its own part of an index: the backlog of one that has to wait is not read at every look
    roots = sa.select(Root.name).where(Root.state != RootState.OFFLINE, Root.name.not_in(paused))
    found = [job for root in session.scalars(roots).all() for job in session.scalars(next_ones.where(Job.root == root))]
    return sorted(found, key=lambda job: (job.priority, job.id))[:room]


def _count() -> sa.Select[int]:
    return sa.select(sa.func.count()).select_from(Job)


def _is_out() -> sa.ColumnElement[bool]:
    """A message was sent for it that a claim may follow: for a root that is offline none does, until it is back."""
    offline = sa.select(Root.name).where(Root.state == RootState.OFFLINE)
    return sa.and_(Job.state == JobState.QUEUED, Job.dispatched_at.is_not(None), Job.root.not_in(offline))


def _overtaken(session: Session) -> sa.ColumnElement[bool]:
    """Sent before a job of the same or a less urgent priority that has been claimed since (one look for all).

    The broker hands out the most urgent first, and of those the oldest: while a message lies there, no later one that
    is not more urgent is taken. A worker may have taken it and not yet claimed its job, which a process that is loading
    the net does later than others claim theirs. Then it is sent twice, and the second finds nothing to claim.

    Only what was sent after the oldest message that is out can have overtaken it: few rows, however long the record.
    """
    oldest = session.scalar(sa.select(sa.func.min(Job.dispatched_at)).where(_is_out()))
    if oldest is None:
        return sa.false()
    newest = session.execute(
        sa.select(Job.priority, sa.func.max(Job.dispatched_at))
        .where(Job.state.in_(CLAIMED), Job.dispatched_at > oldest, Job.started_at >= Job.dispatched_at)
        .group_by(Job.priority)
    )
    return sa.or_(sa.false(), *(sa.and_(Job.priority <= priority, Job.dispatched_at < at) for priority, at in newest))


def mark_dispatched(session: Session, job_ids: Collection[int]) -> set[int]:
    """Note that messages are about to be sent for those of these jobs that are still due; returns them."""
    still = sa.update(Job).where(Job.id.in_(job_ids), Job.state == JobState.QUEUED, due(Job))
    return set(session.scalars(still.values(dispatched_at=after(0)).returning(Job.id)))


def mark_undelivered(session: Session, job_ids: Collection[int]) -> None:
    """Note that these messages could not be sent after all."""
    session.execute(sa.update(Job).where(Job.id.in_(job_ids), Job.state == JobState.QUEUED).values(dispatched_at=None))


def bytes_wanted(session: Session, root: str, *, ahead: int) -> int:
    """Bytes that the derivatives of a root's running and next jobs will take, by a generous estimate.

    Args:
        session: any session.
        root: its name.
        ahead: how many queued jobs to count.
    """
    sizes = sa.select(Job.size_bytes).where(Job.root == root)
    running = session.scalars(sizes.where(Job.state == JobState.RUNNING)).all()
    queued = session.scalars(
        sizes.where(Job.state == JobState.QUEUED, due(Job)).order_by(Job.priority, Job.id).limit(ahead)
    ).all()
    return BYTES_PER_BYTE * (sum(running) + sum(queued))


def missed(session: Session, root: str, last: int = 0) -> Sequence[tuple[int, bytes]]:
    """(id, path) of jobs of a root that were skipped because their file was not there: the page after the id `last`."""
    skipped = sa.select(Job.id, Job.path).where(Job.root == root, Job.state == JobState.SKIPPED)
    page = skipped.where(Job.error_class == "vanished", Job.id > last).order_by(Job.id).limit(PAGE)
    return [(job_id, path) for job_id, path in session.execute(page)]
