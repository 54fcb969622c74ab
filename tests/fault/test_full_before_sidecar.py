"""The output disk is full when a derivative has its name, and its sidecar is still to be written."""

import os
import signal
import time
from pathlib import Path

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from mounts import fill, own_mounts, tmpfs
from plant import running

from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_output_fills_up_before_the_sidecar(tmp_path: Path, cell: Cell) -> None:
    """No strike is counted; when there is room again the derivative is known for ours, and gets its sidecar."""
    own_mounts()
    with tmpfs(tmp_path / "output", "8m"), running(tmp_path, PHOTOCHROM_MIN_FREE_MIB="1") as plant:
        plant.arm("published", "stop")
        originals = plant.drop("sidecar", 1)
        plant.hit("published")
        child, filler = plant.child(), fill(plant.output)
        os.kill(child, signal.SIGCONT)

        def has_failed() -> bool:
            (job,) = plant.jobs("sidecar")
            return job.state is JobState.QUEUED and job.error_class == "output_full"

        wait_for(has_failed, 30, "the sidecar finds no room")
        assert [path.suffix for path in (plant.output / "sidecar").iterdir()] == [".png"], "there is a sidecar"
        filler.unlink()
        began = time.time()
        ended = plant.settle("sidecar", 1)
        assert {(job.failures, job.lost) for job in plant.jobs("sidecar")} == {(0, 0)}, "a strike was counted"
        assert_invariants(plant, originals, "sidecar")
    cell.recovered("ENOSPC between a derivative and its sidecar", ended - began)
