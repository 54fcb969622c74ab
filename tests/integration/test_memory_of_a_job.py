"""A job whose process has no memory left, not even to keep its lease, says so in its row."""

import _thread
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from rows_made import source_file

from worker import holding, jobs, pipeline
from worker.db import Database, SchemaGuard
from worker.holding import held
from worker.settings import Settings
from worker.tables import Job, JobEvent, JobState, Root, RootState


class ProcessEnded(BaseException):
    """Instead of the end of the process that runs the tests."""


@pytest.fixture
def job_id(database: Database, monkeypatch: pytest.MonkeyPatch) -> int:
    """A queued job, and a bench that could claim it."""
    champion = SimpleNamespace(device="CPU", version=SimpleNamespace(name="v1"))
    serving: Any = SimpleNamespace(champion=lambda: champion)
    bench = pipeline.Bench(Settings(), database, serving, "w:1", SchemaGuard(database))

    def end(code: int) -> None:
        raise ProcessEnded(code)

    monkeypatch.setattr(pipeline, "prepare", lambda: bench)
    monkeypatch.setattr(pipeline.os, "_exit", end)
    monkeypatch.setattr(pipeline.logging, "shutdown", lambda: None)
    with database.writing() as session:
        file = source_file()
        root = Root(
            name=file.root, path=b"/scans", output=b"/out", mode="events", fs_type="ext4", state=RootState.ONLINE
        )
        root.identity = "{}"
        session.add_all([root, file])
        session.flush()
        return jobs.submit(session, file, "a" * 64, priority=3)[0].id


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError(), None])
def test_a_lease_that_cannot_be_kept_for_lack_of_memory_is_no_lost_worker(
    database: Database, job_id: int, error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        if error is not None:
            raise error

    # None: the system has made the thread, and Python's first step in it found no memory
    with monkeypatch.context() as starved:
        starved.setattr(_thread, "start_new_thread", refuse)
        starved.setattr(holding, "BEGINS_S", 0.01)
        with pytest.raises(ProcessEnded):  # what is left may not do for the next scan either
            pipeline.run(job_id)
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        assert (job.state, job.error_class, job.lost, job.failures) == (JobState.QUEUED, "memory_limit", 0, 1)
        assert "job_memory_mib" in str(job.error_message)


def test_a_beat_without_memory_is_not_the_last(
    database: Database, job_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that renews the lease goes on when memory is there again."""
    beats, renewed = 0, threading.Event()
    with database.writing() as session:
        job = jobs.claim(session, job_id, worker="w:1", device="CPU", host="h", model_version="v1", lease_s=20)
    assert job is not None

    def renew(*_: object, **__: object) -> None:
        nonlocal beats
        beats += 1
        if beats == 1:
            raise MemoryError
        renewed.set()

    monkeypatch.setattr(jobs, "renew", renew)
    with held(database, Settings(heartbeat_s=0.01), job, (b"/", b"/")):
        assert renewed.wait(60)
    with database.reading() as session:
        assert session.scalar(sa.select(sa.func.count(JobEvent.id))) == 2
