"""SQLite's write lock is held by another program while scans come, a worker begins, and a watcher starts anew."""

import contextlib
import os
import signal
import sqlite3
import time

import pytest
from cells import Cell
from invariants import assert_invariants
from plant import Plant, cut_off

from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOCKED_S = 60


def test_scans_come_while_sqlite_is_locked(plant: Plant, cell: Cell) -> None:
    plant.arm("before_claim", "stop")
    originals = plant.drop("lock-before", 3)
    plant.hit("before_claim")
    child, watcher = plant.child(), plant.part("watch")
    plant.wait_jobs("lock-before", 3)
    record = sqlite3.connect(plant.installation.state_dir / "photochrom.db", isolation_level=None, timeout=30)
    with contextlib.closing(record) as connection:
        connection.execute("BEGIN IMMEDIATE")
        os.kill(child, signal.SIGCONT)  # it wants to claim
        more = plant.drop("lock-meanwhile", 3)
        cut_off(watcher)
        time.sleep(LOCKED_S)
        assert plant.jobs("lock-meanwhile") == [], "it was not locked"
        assert {(job.state, job.claim_no) for job in plant.jobs("lock-before")} == {(JobState.QUEUED, 0)}
        connection.execute("ROLLBACK")
    ended = time.time()
    last = max(plant.settle("lock-before", 3), plant.settle("lock-meanwhile", 3))
    for folder, known in {"lock-before": originals, "lock-meanwhile": more}.items():
        assert {job.failures + job.lost for job in plant.jobs(folder)} == {0}, "a strike was counted"
        assert_invariants(plant, known, folder)
    assert plant.part("watch") != watcher
    cell.recovered(f"SQLite locked for {LOCKED_S} s while scans come and the watcher is killed", last - ended)
