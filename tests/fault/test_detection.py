"""How long from the close of a file until its job is queued, on a local folder and on one that can only be scanned."""

import json
import os
import random
import statistics
import time
from pathlib import Path

import pytest
from cells import Cell
from installation import Installation
from invariants import assert_invariants
from manifests import Manifest, entry
from plant import Plant, png, running, scan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
SETTLE_S = 1.0


def latencies(plant: Plant, folder: str, count: int, apart_s: float) -> list[float]:
    """Seconds from close to queued, the settle time included."""
    closed, chance = {}, random.Random(4)
    originals: Manifest = {}
    (plant.inbox / folder).mkdir()
    for number in range(count):
        path = plant.inbox / folder / f"{number}.png"
        path.write_bytes(png(scan(5000 + number, 24)))
        closed[f"{folder}/{path.name}".encode()] = time.time()
        originals[os.fsencode(path)] = entry(os.fsencode(path))
        time.sleep(chance.uniform(0, 2 * apart_s))
    plant.settle(folder, count, 120)
    assert_invariants(plant, originals, folder)
    return sorted(job.created_at.timestamp() - closed[job.path] for job in plant.jobs(folder))


def told(values: list[float]) -> str:
    return f"(close to queued: p50 {statistics.median(values):.2f} s, p99 {values[int(0.99 * len(values))]:.2f} s)"


def test_events(plant: Plant, cell: Cell) -> None:
    values = latencies(plant, "latency", 60, 0.3)
    cell.held(f"detection by events, settle {SETTLE_S:g} s, 60 files", told(values))
    assert values[-1] < SETTLE_S + 15


def test_scans(tmp_path: Path, cell: Cell) -> None:
    where = Installation(tmp_path)
    root = {"path": str(where.inbox), "output": str(where.output), "mode": "scan"}
    with running(tmp_path, PHOTOCHROM_ROOTS=json.dumps([root]), PHOTOCHROM_SCAN_INTERVAL_S="10") as plant:
        values = latencies(plant, "latency", 60, 0.5)
    cell.held(f"detection by scans every 10 s, settle {SETTLE_S:g} s, 60 files", told(values))
    assert values[-1] < 10 + SETTLE_S + 15
