"""SIGKILL of a part that has no hand in what is going on, at each point of a job and of a look at the folder.

The part whose work it is stands at the point meanwhile, and goes on while the other one is away.
"""

import os
import signal
import time

import pytest
from cells import Cell
from installation import has_ended, wait_for
from invariants import assert_invariants
from plant import Plant
from test_kills import COLOURING, HIGH_PX, WATCHING

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

NAMES = {"watch": "the watcher", "beat": "beat", "broker": "the broker", "worker": "the worker"}


def process_of(plant: Plant, part: str) -> int:
    return plant.broker() if part == "broker" else plant.part(part)


def kill_beside(plant: Plant, part: str, stopped: int) -> float:
    """Kill one, let the other go on, and wait until the first runs again; when it was killed (Unix time)."""
    before, ended = process_of(plant, part), time.time()
    os.kill(before, signal.SIGKILL)  # an error if it is not there
    wait_for(lambda: has_ended(before), 10, f"{part} has ended")
    os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: process_of(plant, part) != before, 30, f"{part} runs again")
    return ended


@pytest.mark.parametrize("part", ["watch", "beat", "broker"])
@pytest.mark.parametrize("point", COLOURING)
def test_killed_while_a_job_is_at(plant: Plant, cell: Cell, point: str, part: str) -> None:
    folder = f"{part}-beside-{point}"
    plant.arm(point, "stop")
    originals = plant.drop(folder, 2, size_px=HIGH_PX)
    plant.hit(point)
    ended = kill_beside(plant, part, plant.child())
    cell.recovered(f"SIGKILL of {NAMES[part]} while a job is at: {point}", plant.settle(folder, 2) - ended)
    assert_invariants(plant, originals, folder)
    told = {(job.claim_no, job.failures, job.lost) for job in plant.jobs(folder)}
    assert told == {(1, 0, 0)}, "the job was done twice, or blamed"


@pytest.mark.parametrize("part", ["worker", "broker"])
@pytest.mark.parametrize("point", [*WATCHING, "submitting"])
def test_killed_while_the_watcher_is_at(plant: Plant, cell: Cell, point: str, part: str) -> None:
    """At `submitting` the watcher holds the write lock of the database: the new worker waits for it."""
    folder = f"{part}-beside-{point}"
    plant.arm(point, "stop")
    originals = plant.drop(folder, 3)
    plant.hit(point)
    ended = kill_beside(plant, part, plant.part("watch"))
    cell.recovered(f"SIGKILL of {NAMES[part]} while the watcher is at: {point}", plant.settle(folder, 3) - ended)
    assert_invariants(plant, originals, folder)
    assert {job.failures for job in plant.jobs(folder)} == {0}, "a strike was counted"
    # a worker that dies may have had one of them in hand, at the last point
    assert sum(job.lost for job in plant.jobs(folder)) <= (part == "worker" and point == "sent")
