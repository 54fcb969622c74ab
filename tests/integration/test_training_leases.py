"""Leases on training runs and curated photos, on both databases: a dead holder's end, whatever the clock does."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from rows_made import source_file

from worker import curated, training_runs
from worker.db import Database, after
from worker.learning_tables import CuratedPhoto, TrainingRun

TWO_HOURS_S = 7200
ELSEWHERE = "another-host:7:1"


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of this host that could hold a run."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield sleeper
    sleeper.kill()
    sleeper.communicate()


def _holder(process: "subprocess.Popen[bytes]") -> str:
    return f"{socket.gethostname()}:{process.pid}:{training_runs._started(process.pid)}"


def _begin(database: Database, holder: str) -> tuple[int, bool]:
    with database.writing() as session:
        run, ours = training_runs.begin(session, trigger="now", least_new=0, holder=holder)
        return run.id, ours


def _held(database: Database, holder: str, lease_until: Any) -> int:
    run_id, ours = _begin(database, holder)
    assert ours
    with database.writing() as session:
        session.execute(sa.update(TrainingRun).values(lease_until=lease_until))
    return run_id


def _under_way(database: Database) -> bool:
    with database.reading() as session:
        assert training_runs.interrupted(session) is not training_runs.under_way(session)
        return training_runs.under_way(session)


def test_a_trainer_that_died_before_the_clock_was_put_back_is_taken_over_at_once(record: Database) -> None:
    """Its lease seems to hold for two hours more; colouring must not pause for so long either."""
    run_id = _held(record, ELSEWHERE, after(TWO_HOURS_S + training_runs.LEASE_S))
    assert not _under_way(record)
    assert _begin(record, "here:3:4") == (run_id, True)


@pytest.mark.parametrize("correction_s", [-5, 0, 5])
def test_a_clock_that_is_corrected_by_seconds_takes_nothing_away(record: Database, correction_s: int) -> None:
    _held(record, ELSEWHERE, after(training_runs.LEASE_S + correction_s))
    assert _under_way(record)
    assert not _begin(record, "here:3:4")[1]


@pytest.mark.parametrize("lease_s", [-TWO_HOURS_S, TWO_HOURS_S])
def test_a_trainer_that_is_seen_at_work_keeps_its_run_whatever_the_clock_does(
    record: Database, process: "subprocess.Popen[bytes]", lease_s: int
) -> None:
    _held(record, _holder(process), after(lease_s))
    assert _under_way(record)
    assert not _begin(record, "here:3:4")[1]


@pytest.mark.parametrize("lease_s", [-1, TWO_HOURS_S])
def test_a_trainer_that_is_stopped_loses_its_run_with_its_lease(
    record: Database, process: "subprocess.Popen[bytes]", lease_s: int
) -> None:
    run_id = _held(record, _holder(process), after(lease_s))
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    assert not _under_way(record)
    assert _begin(record, "here:3:4") == (run_id, True)


def test_a_trainer_of_which_only_the_exit_code_is_left_is_dead(
    record: Database, process: "subprocess.Popen[bytes]"
) -> None:
    run_id = _held(record, _holder(process), after(training_runs.LEASE_S))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not _under_way(record)
    assert _begin(record, "here:3:4") == (run_id, True)


def _photo(database: Database, lease_until: Any) -> int:
    with database.writing() as session:
        file = source_file(b"photo.jpg", root="(curated)")
        session.add(file)
        session.flush()
        curated.submit(session, file, "a" * 64)
        session.flush()
        session.execute(sa.update(CuratedPhoto).values(lease_until=lease_until, lost=1))
        return session.scalars(sa.select(CuratedPhoto.id)).one()


@pytest.mark.parametrize(("lease_s", "free"), [(-1, True), (curated.LEASE_S, False), (TWO_HOURS_S, True)])
def test_a_photo_of_a_dead_worker_is_checked_whatever_the_clock_did(
    record: Database, lease_s: float, free: bool
) -> None:
    photo_id = _photo(record, after(lease_s))
    with record.writing() as session:
        assert curated.waiting(session) == int(free)
        claimed = curated.claim(session)
        assert (claimed.id if claimed else None) == (photo_id if free else None)
