"""The outbox: which messages are due, how many may fly, and when one is lost."""

from typing import Any

import pytest
import sqlalchemy as sa
from rows_made import watched

from worker import jobs, outbox
from worker.db import Database, after
from worker.tables import FileState, Job, JobState, Root, RootState, SourceFile


def _job(database: Database, number: int, **changes: Any) -> int:
    with database.writing() as session:
        path, root = b"%d.tif" % number, changes.pop("root", "r")
        if session.get(Root, root) is None:
            session.add(watched(root))
        file = SourceFile(
            root=root, directory=b"", path=path, display_path=path.decode(), state=FileState.SUBMITTED,
            size_bytes=1, mtime_ns=1, ctime_ns=1, inode=1,
        )  # fmt: skip
        session.add(file)
        session.flush()
        sha256 = changes.pop("source_sha256", f"{number:064d}")
        job, _ = jobs.submit(session, file, sha256, priority=changes.pop("priority", 3))
        if changes:
            session.execute(sa.update(Job).where(Job.id == job.id).values(**changes))
        return job.id


def _set(database: Database, root: str, state: RootState) -> None:
    with database.writing() as session:
        session.get_one(Root, root).state = state


def _due(database: Database, in_flight: int = 64, broker_empty: bool = False) -> list[int]:
    with database.reading() as session:
        return [job.id for job in outbox.to_dispatch(session, in_flight=in_flight, broker_empty=broker_empty)]


def test_an_empty_table_has_nothing_to_send(database: Database) -> None:
    with database.reading() as session:
        assert not outbox.anything_queued(session)
    assert _due(database, broker_empty=True) == []


def test_what_was_never_sent_is_sent_by_priority_then_age(database: Database) -> None:
    backlog = _job(database, 1, priority=6)
    normal = [_job(database, number) for number in (2, 3)]
    interactive = _job(database, 4, priority=0)
    assert _due(database) == [interactive, *normal, backlog]


def test_a_clock_that_was_put_back_makes_nothing_wait(database: Database) -> None:
    """Times of two hours ahead: of a back-off that began then, and of a message that was lost then."""
    waits = _job(database, 1, not_before=after(7230), started_at=after(7200))
    lost = _job(database, 2, dispatched_at=after(7200))
    assert _due(database, broker_empty=True) == [waits, lost]


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.QUEUED])
def test_only_queued_jobs_are_sent(database: Database, state: JobState) -> None:
    _job(database, 1, state=state)
    assert _due(database, broker_empty=True) == []
    with database.reading() as session:
        assert not outbox.anything_queued(session)


def test_a_job_is_sent_when_its_back_off_is_over(database: Database) -> None:
    _job(database, 1, not_before=after(30))
    ready = _job(database, 2, not_before=after(-1))
    assert _due(database) == [ready]
    with database.reading() as session:
        assert outbox.anything_queued(session)


def test_a_sent_job_is_not_sent_again(database: Database) -> None:
    job_id = _job(database, 1)
    with database.writing() as session:
        outbox.mark_dispatched(session, [job_id])
    assert _due(database) == []
    assert _due(database, broker_empty=True) == [], "its message may still be under way"


def test_marking_nothing_is_allowed(database: Database) -> None:
    job_id = _job(database, 1)
    with database.writing() as session:
        outbox.mark_dispatched(session, [])
        outbox.mark_undelivered(session, [])
    assert _due(database) == [job_id]


def test_no_more_fly_than_the_cap(database: Database) -> None:
    ids = [_job(database, number) for number in range(6)]
    assert _due(database, in_flight=2) == ids[:2]
    with database.writing() as session:
        outbox.mark_dispatched(session, ids[:2])
    assert _due(database, in_flight=2) == []
    assert _due(database, in_flight=3) == ids[2:3]
    with database.writing() as session:  # one of the two is running, and counts all the same
        assert jobs.claim(session, ids[0], worker="w", device="CPU", host="h", model_version="v", lease_s=20)
    assert _due(database, in_flight=2) == []
    assert _due(database, in_flight=1) == []


def test_lost_messages_are_sent_again_and_do_not_count_as_flying(database: Database) -> None:
    ids = [_job(database, number, dispatched_at=after(-60)) for number in range(3)]
    assert _due(database, in_flight=3, broker_empty=False) == []
    assert _due(database, in_flight=3, broker_empty=True) == ids


@pytest.mark.parametrize("priority", [3, 6])
def test_a_message_is_lost_when_a_later_one_that_is_not_more_urgent_was_claimed(
    database: Database, priority: int
) -> None:
    """A scan of everyday, before a backlog that keeps the broker from ever being empty."""
    lost = _job(database, 1, dispatched_at=after(-60))
    _job(database, 2, dispatched_at=after(-50), started_at=after(-40), state=JobState.RUNNING, priority=0)
    assert _due(database) == [], "what is more urgent overtakes rightly"
    _job(database, 3, dispatched_at=after(-50), started_at=after(-40), state=JobState.DONE, priority=priority)
    assert _due(database) == [lost]


def test_a_message_is_not_lost_because_of_one_that_was_sent_earlier(database: Database) -> None:
    _job(database, 1, dispatched_at=after(-60))
    _job(database, 2, dispatched_at=after(-70), started_at=after(-40), state=JobState.DONE)
    # sent later, claimed before that by an earlier message of its own
    _job(database, 3, dispatched_at=after(-50), started_at=after(-90), state=JobState.RUNNING)
    assert _due(database) == []


def test_nothing_is_sent_for_an_offline_root(database: Database) -> None:
    """No claim would take it; and its place is another root's meanwhile."""
    away, here = _job(database, 1, root="away"), _job(database, 2)
    _set(database, "away", RootState.OFFLINE)
    assert _due(database, in_flight=1) == _due(database, broker_empty=True) == [here]
    _set(database, "away", RootState.ONLINE)
    assert _due(database) == [away, here]


def test_messages_of_an_offline_root_fill_no_place_and_are_lost_only_when_it_is_back(database: Database) -> None:
    """Whoever got one dropped it; while the root is away, what was claimed since is not read again at every look."""
    stale = _job(database, 1, root="away", dispatched_at=after(-60))
    claimed = {"dispatched_at": after(-50), "started_at": after(-40), "state": JobState.DONE}
    _job(database, 2, **claimed)
    new = _job(database, 3)
    _set(database, "away", RootState.OFFLINE)
    with database.reading() as session:
        assert outbox._overtaken(session).compare(sa.false())
    assert _due(database, in_flight=1) == [new]
    _set(database, "away", RootState.ONLINE)
    assert _due(database) == [stale, new]


def test_each_root_s_next_jobs_are_merged_by_priority_then_age(database: Database) -> None:
    ids = [_job(database, number, root="ab"[number % 2], priority=6 - 3 * (number > 3)) for number in range(6)]
    assert _due(database, in_flight=5) == [*ids[4:], *ids[:3]]


def test_a_twin_is_not_sent_while_its_elder_is_at_work(database: Database) -> None:
    elder = _job(database, 1, source_sha256="a" * 64)
    younger = _job(database, 2, source_sha256="a" * 64)
    assert _due(database) == [elder]
    with database.writing() as session:
        session.execute(sa.update(Job).where(Job.id == elder).values(state=JobState.DONE))
    assert _due(database) == [younger]


def test_what_could_not_be_sent_is_due_again_at_once(database: Database) -> None:
    ids = [_job(database, number) for number in range(3)]
    with database.writing() as session:
        outbox.mark_dispatched(session, ids)
        outbox.mark_undelivered(session, ids[1:])
    assert _due(database) == ids[1:]


def test_a_job_that_moved_meanwhile_is_not_marked(database: Database) -> None:
    job_id = _job(database, 1, dispatched_at=after(-5))
    with database.writing() as session:
        assert jobs.claim(session, job_id, worker="w", device="CPU", host="h", model_version="v", lease_s=20)
        before = session.get_one(Job, job_id).dispatched_at
        assert outbox.mark_dispatched(session, [job_id]) == set()
        outbox.mark_undelivered(session, [job_id])
        session.expire_all()
        assert session.get_one(Job, job_id).dispatched_at == before
