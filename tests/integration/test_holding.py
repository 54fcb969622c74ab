"""A job whose share does not answer goes back without a strike, and its process ends; a slow share does neither."""

import logging
import os
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from rows_made import source_file

from worker import holding, jobs, pipeline
from worker.answers import NoAnswer
from worker.db import Database
from worker.settings import Settings
from worker.tables import Job, JobState, Root, RootState

HURRIED = Settings(heartbeat_s=0.01)


@pytest.fixture
def job(database: Database) -> Job:
    """A claimed one."""
    with database.writing() as session:
        file = source_file()
        session.add(file)
        session.flush()
        job_id = jobs.submit(session, file, "a" * 64, priority=3)[0].id
    with database.writing() as session:
        claimed = jobs.claim(session, job_id, worker="w:1", device="CPU", host="h", model_version="v1", lease_s=20)
    assert claimed is not None
    return claimed


def silent(for_s: float, asked: threading.Event) -> Callable[..., bool]:
    def ask(folder: bytes, *_: object) -> bool:
        asked.set()
        raise NoAnswer(folder, for_s)

    return ask


def test_a_share_that_is_silent_for_a_lease(database: Database, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(holding, "ask", silent(HURRIED.lease_s, threading.Event()))
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    monkeypatch.setattr(os, "_exit", lambda _code: ended.set())
    with holding.held(database, HURRIED, job, (b"/scans", b"/out")):
        assert ended.wait(60)
    with database.reading() as session:
        row = session.get_one(Job, job.id)
        assert (row.state, row.failures, row.lost, row.lease_until) == (JobState.QUEUED, 0, 0, None)
        assert "/scans does not answer (for 20 s)" in row.reason and row.not_before is not None


def test_a_share_below_the_root_that_is_silent(database: Database, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root and the output answer all the while."""
    asked = set[bytes]()
    with database.writing() as session:
        session.add(Root(name=job.root, path=b"/scans", output=b"/out", mode="scan", fs_type="", identity="{}", files=0,
                         state=RootState.ONLINE))  # fmt: skip
    monkeypatch.setattr(holding, "ask", lambda folder, *_: asked.add(folder))
    job.path = b"nas/box/a.tif"
    folders = pipeline._folders(SimpleNamespace(database=database), job)  # type: ignore[arg-type]
    assert holding._silence(folders, HURRIED) is None
    assert asked == {b"/scans/nas/box", b"/out/nas/box"}


def test_a_share_that_is_slow(database: Database, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    monkeypatch.setattr(holding, "ask", silent(HURRIED.lease_s - 1, asked))
    with holding.held(database, HURRIED, job, (b"/scans", b"/out")):
        assert asked.wait(60)
    with database.reading() as session:
        assert session.get_one(Job, job.id).state is JobState.RUNNING
