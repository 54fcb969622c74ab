"""After a death: whose job is taken back, what is tidied, and shares that are away or do not answer meanwhile."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.contrib.testing.mocks import TaskMessage
from celery.worker.request import Request
from celery.worker.strategy import create_request_cls
from rows_made import source_file

from worker import jobs, names, queue, recovery, tasks
from worker.answers import ask
from worker.db import Database
from worker.tables import Job, JobState, Root, RootState


@pytest.fixture
def back() -> Iterator[threading.Event]:
    """Until it is set, the shares of these tests do not answer."""
    event = threading.Event()
    yield event
    event.set()


def watched(database: Database, name: str, output: Path, state: RootState = RootState.ONLINE) -> Path:
    """A root with an old temporary file in its output; returns that."""
    left = output / os.fsdecode(names.temporary_name(1, 1))
    output.mkdir()
    left.touch()
    os.utime(left, (0, 0))
    with database.writing() as session:
        session.add(Root(name=name, path=b"/" + name.encode(), output=bytes(output), mode="scan", fs_type="",
                         identity="{}", files=0, state=state))  # fmt: skip
    return left


def claimed(database: Database, worker: str) -> int:
    with database.writing() as session:
        file = source_file(root="archive")
        session.add(file)
        session.flush()
        job_id = jobs.submit(session, file, "a" * 64, priority=3)[0].id
    claim(database, job_id, worker)
    return job_id


def claim(database: Database, job_id: int, worker: str) -> Job:
    with database.writing() as session:
        job = jobs.claim(session, job_id, worker=worker, device="CPU", host="h", model_version="v1", lease_s=20)
    assert job is not None
    return job


def state_of(database: Database, job_id: int) -> tuple[JobState, int, str]:
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        return job.state, job.lost, job.worker or ""


def impatient(silent: Path) -> Callable[..., Any]:
    """`ask`, that waits long for all but one folder."""

    def asking(folder: bytes, question: Callable[[], object], **options: Any) -> object:
        return ask(folder, question, 0.01 if folder.rstrip(b"/") == bytes(silent) else 60, **options)

    return asking


def test_a_death_that_is_told_late_takes_nothing_from_the_next(
    state_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOCHROM_WORKER", "boot")
    watched(state_database, "archive", tmp_path / "output")
    job_id = claimed(state_database, "boot:70:aaaaaaaa")
    with state_database.writing() as session:
        jobs.release(session, session.get_one(Job, job_id), "given back")
    claim(state_database, job_id, "boot:7:bbbbbbbb")
    recovery.take_back(job_id, 70, "signal 9")
    assert state_of(state_database, job_id) == (JobState.RUNNING, 1, "boot:7:bbbbbbbb")
    recovery.take_back(job_id, 7, "signal 9")
    assert state_of(state_database, job_id)[:2] == (JobState.QUEUED, 1)


@pytest.fixture
def message() -> Request:
    """A job's message as the worker's first process holds it."""
    Held = create_request_cls(tasks.colorize.Request, tasks.colorize, _Pool(), "here", None, app=queue.app)
    return Held(TaskMessage(queue.COLORIZE, args=(12,)), app=queue.app, task=tasks.colorize)


class _Pool:
    def apply_async(self, *_: object, **__: object) -> None:
        """Nothing is worked on here."""


def test_the_process_that_had_a_message_is_named(message: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(recovery, "take_back", lambda *what: told.append(what))
    message.on_accepted(4711, 0.0)
    try:
        raise WorkerLostError("signal 9")
    except WorkerLostError:
        message.on_failure(ExceptionInfo())
    message.on_timeout(False, 900)
    assert [what[:2] for what in told] == [(12, 4711), (12, 4711)]
    assert told[1][3] == jobs.TOO_LONG


def test_an_output_that_does_not_answer_holds_up_no_worker_whose_process_died(
    state_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: threading.Event
) -> None:
    watched(state_database, "archive", tmp_path / "output")
    job_id = claimed(state_database, f"{recovery.worker_name()}70:aaaaaaaa")
    monkeypatch.setattr(recovery, "ask", impatient(tmp_path / "output"))
    monkeypatch.setattr(recovery.publish, "remove_left_behind", lambda *_, **__: back.wait())
    recovery.take_back(job_id, 70, "signal 9")
    assert state_of(state_database, job_id)[0] is JobState.QUEUED


def test_tidying_leaves_out_what_is_away_or_does_not_answer(
    state_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: threading.Event
) -> None:
    away = watched(state_database, "away", tmp_path / "a", RootState.OFFLINE)
    silent = watched(state_database, "silent", tmp_path / "b")
    there = watched(state_database, "there", tmp_path / "c")
    real = recovery.publish.sweep_temporaries

    def sweep(output: bytes, **options: Any) -> list[bytes]:
        if output == bytes(silent.parent):
            back.wait()
        return real(output, **options)

    monkeypatch.setattr(recovery, "ask", impatient(silent.parent))
    monkeypatch.setattr(recovery.publish, "sweep_temporaries", sweep)
    recovery.tidy()
    assert [path.exists() for path in (away, silent, there)] == [True, True, False]
    recovery.tidy()  # while the earlier one still waits
    back.set()
    with pytest.MonkeyPatch.context() as patient:
        patient.setattr(recovery, "ask", lambda *given, **options: ask(*given, 60, **options))
        recovery.tidy()
    assert not silent.exists()
