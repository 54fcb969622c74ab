"""The whole installation stands still for longer than any lease, as on a host that sleeps or is moved."""

import contextlib
import os
import signal
import time

import pytest
from cells import Cell
from installation import processes_of, wait_for
from invariants import assert_invariants
from plant import Plant
from test_kills import HIGH_PX

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STOPPED_S = 42  # two leases


def is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"
    return True  # it has ended


@pytest.mark.parametrize("point", ["inference", "intended", "published"])
def test_everything_stopped(plant: Plant, cell: Cell, point: str) -> None:
    """Nobody has taken the job over when all go on at once; whoever is first, it is done once."""
    folder = f"asleep-{point}"
    plant.arm(point, "stop")
    originals = plant.drop(folder, 3, size_px=HIGH_PX)
    plant.hit(point)
    everybody = processes_of(plant.installation.state_dir)
    assert {plant.up, plant.part("watch"), plant.part("worker"), plant.broker(), plant.child()} <= {*everybody}
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: all(map(is_stopped, everybody)), 10, "all stand still")
    time.sleep(STOPPED_S)
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    ended = time.time()
    cell.recovered(f"SIGSTOP of all processes for {STOPPED_S} s, a job at: {point}", plant.settle(folder, 3) - ended)
    assert_invariants(plant, originals, folder)
    assert {job.failures for job in plant.jobs(folder)} == {0}, "a strike was counted"
