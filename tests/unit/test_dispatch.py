"""The dispatcher: rows before messages, nothing marked as sent that was not, a silent broker told once."""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rows_made import watched
from sqlalchemy.orm import Session

from daemon.dispatch import GRACE_S, Dispatcher
from worker import jobs, outbox, queue
from worker.db import Database, after
from worker.errors import BrokerUnavailable
from worker.settings import Settings
from worker.tables import FileState, Job, JobState, SourceFile


class Broker:
    """What the queue module would send; `refuses_from` makes the n-th message and all later ones fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
        self.sent: list[int] = []
        self.marked: list[bool] = []
        self.messages = 0
        self.refuses_from: int | None = None
        self.database = database
        monkeypatch.setattr(queue, "send", self.send)
        monkeypatch.setattr(queue, "waiting", self.waiting)

    def send(self, job_id: int, priority: int) -> None:
        if self.refuses_from is not None and len(self.sent) >= self.refuses_from:
            raise BrokerUnavailable("It is away.")
        with self.database.reading() as session:  # another connection: only what is committed is seen
            self.marked.append(session.get_one(Job, job_id).dispatched_at is not None)
        self.sent.append(job_id)

    def waiting(self) -> int:
        if self.refuses_from == 0:
            raise BrokerUnavailable("It is away.")
        return self.messages


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, database: Database) -> Broker:
    return Broker(monkeypatch, database)


def _jobs(database: Database, count: int, **changes: Any) -> list[int]:
    ids = []
    with database.writing() as session:
        session.add(watched("r"))
        for number in range(count):
            file = SourceFile(
                root="r", directory=b"", path=b"%d" % number, display_path=str(number), state=FileState.SUBMITTED,
                size_bytes=1, mtime_ns=1, ctime_ns=1, inode=1,
            )  # fmt: skip
            session.add(file)
            session.flush()
            ids.append(jobs.submit(session, file, f"{number:064d}", priority=3)[0].id)
        if changes:
            session.execute(sa.update(Job).values(**changes))
    return ids


def _dispatched(database: Database) -> list[int]:
    with database.reading() as session:
        return list(session.scalars(sa.select(Job.id).where(Job.dispatched_at.is_not(None)).order_by(Job.id)))


def test_rows_are_marked_and_committed_before_their_messages_go(database: Database, broker: Broker) -> None:
    ids = _jobs(database, 3)
    dispatcher = Dispatcher(database, Settings())
    assert dispatcher.dispatch() == 3
    assert (broker.sent, broker.marked) == (ids, [True] * 3)
    assert dispatcher.dispatch() == 0
    assert broker.sent == ids


def test_nobody_waits_while_what_is_due_is_looked_for(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a long record it may take a while; what is claimed meanwhile gets no message, and is not marked."""
    ids = _jobs(database, 2)
    real = outbox.to_dispatch

    def look(session: Session, **limits: Any) -> Sequence[Job]:
        found = real(session, **limits)
        with database.writing() as other:  # with a transaction of ours that writes it would be turned away
            assert jobs.claim(other, ids[0], worker="w", device="CPU", host="h", model_version="v", lease_s=20)
        return found

    monkeypatch.setattr(outbox, "to_dispatch", look)
    assert Dispatcher(database, Settings()).dispatch() == 1
    assert broker.sent == ids[1:] == _dispatched(database)


def test_no_more_go_out_than_may_fly(database: Database, broker: Broker) -> None:
    ids = _jobs(database, 5)
    dispatcher = Dispatcher(database, Settings(in_flight=2))
    assert (dispatcher.dispatch(), dispatcher.dispatch()) == (2, 0)
    assert broker.sent == ids[:2]


def test_without_queued_jobs_the_broker_is_not_even_asked(database: Database, broker: Broker) -> None:
    broker.refuses_from = 0
    dispatcher = Dispatcher(database, Settings())
    assert dispatcher.dispatch() == 0
    assert not dispatcher._down


def test_what_was_not_sent_is_sent_when_the_broker_is_back(
    database: Database, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    ids = _jobs(database, 3)
    dispatcher = Dispatcher(database, Settings())
    with caplog.at_level(logging.WARNING):
        broker.refuses_from = 1
        assert dispatcher.dispatch() == 0
        assert _dispatched(database) == ids[:1]
        broker.refuses_from = 0
        for _ in range(5):
            assert dispatcher.dispatch() == 0
        broker.refuses_from = None
        assert dispatcher.dispatch() == 2
    assert broker.sent == ids
    assert [record.message for record in caplog.records] == ["broker_down", "broker_back"]


def test_an_emptied_broker_gets_its_messages_again(database: Database, broker: Broker) -> None:
    """FLUSHALL loses nothing."""
    ids = _jobs(database, 3, dispatched_at=after(-GRACE_S - 1))
    dispatcher = Dispatcher(database, Settings())
    broker.messages = 3
    assert dispatcher.dispatch() == 0
    broker.messages = 0
    assert dispatcher.dispatch() == 3
    assert broker.sent == ids


def test_the_sweep_takes_back_what_is_void(database: Database, broker: Broker) -> None:
    void, live = _jobs(database, 2, state=JobState.RUNNING, worker="w", claim_no=1, lost=1, lease_until=after(10))
    with database.writing() as session:
        session.execute(sa.update(Job).where(Job.id == void).values(lease_until=after(-1)))
    dispatcher = Dispatcher(database, Settings())
    dispatcher.sweep()
    dispatcher.sweep()
    with database.reading() as session:
        states = [session.get_one(Job, job_id).state for job_id in (void, live)]
    assert states == [JobState.QUEUED, JobState.RUNNING]
    assert dispatcher.dispatch() == 1 and broker.sent == [void]


def test_a_broker_that_is_not_there_is_said_so_in_time(tmp_path: Path) -> None:
    """The real client: an endless retry would hold up leases and sweep, which run in the same thread."""
    program = (
        "from worker import queue\nfrom worker.errors import BrokerUnavailable\n"
        "for ask in (queue.waiting, lambda: queue.send(1, 3)):\n"
        "    try: ask()\n"
        "    except BrokerUnavailable as error: print(error)\n"
    )
    environ = {**os.environ, "PHOTOCHROM_BROKER_URL": f"redis+socket://{tmp_path}/none.sock?virtual_host=0"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("The broker does not answer") == 2, done.stderr
