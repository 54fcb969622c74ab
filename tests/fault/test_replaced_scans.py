"""A scan that gets new content while a worker has it: what was made of the old content does not stay."""

import os
import signal
import time

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import Manifest, manifest
from plant import Plant, png, scan

from worker.jobs import PUBLISHED
from worker.tables import Job, JobEvent, JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def write(plant: Plant, folder: str, seed: int, *, in_place: bool = False) -> tuple[Manifest, str]:
    """New content of its only scan: by another file under its name, or so that what is open for reading changes."""
    path = plant.inbox / folder / "0.png"
    written = path if in_place else path.with_name(".new")
    written.write_bytes(png(scan(seed)))
    written.rename(path)
    originals = manifest(path.parent)
    return originals, originals[os.fsencode(path)][0]


def submitted(plant: Plant, folder: str, sha256: str) -> bool:
    return any(job.source_sha256 == sha256 for job in plant.jobs(folder))


def published_of(plant: Plant, sha256: str) -> int:
    """How many jobs about these bytes have ended with a derivative."""
    with plant.database.reading() as session:
        ends = session.query(JobEvent).join(Job, Job.id == JobEvent.job_id)
        return ends.filter(Job.source_sha256 == sha256, JobEvent.state.in_(PUBLISHED)).count()


@pytest.mark.parametrize(("point", "how"), [("inference", "replaced"), ("reading", "overwritten")])
def test_replaced_while_it_is_worked_on(plant: Plant, cell: Cell, point: str, how: str) -> None:
    plant.arm(point, "stop")
    ((old, *_),) = [entry for entry in plant.drop(how, 1).values() if entry[0]]
    plant.hit(point)
    originals, sha256 = write(plant, how, 99 + len(how), in_place=how == "overwritten")
    began = time.time()
    os.kill(plant.child(), signal.SIGCONT)
    wait_for(lambda: submitted(plant, how, sha256), 60, "the new content is submitted")
    ended = plant.settle(how, 1)
    assert_invariants(plant, originals, how)
    assert published_of(plant, old) == 0, "a derivative was recorded of bytes that were read while they changed"
    assert published_of(plant, sha256) == 1
    cell.recovered(f"scan {how} while it is worked on ({point})", ended - began)


@pytest.mark.parametrize("point", ["intended", "published", "recorded"])
def test_replaced_while_its_derivative_is_published(plant: Plant, cell: Cell, point: str) -> None:
    """The record has the new content before the worker goes on: its derivative is void, though it may lie there."""
    folder = f"replaced-{point}"
    plant.arm(point, "stop")
    ((old, *_),) = [entry for entry in plant.drop(folder, 1).values() if entry[0]]
    plant.hit(point)
    child = plant.child()
    originals, sha256 = write(plant, folder, int.from_bytes(point[:3].encode()))
    wait_for(lambda: submitted(plant, folder, sha256), 30, "the new content is submitted")
    began = time.time()
    os.kill(child, signal.SIGCONT)
    ended = plant.settle(folder, 1)
    assert_invariants(plant, originals, folder)
    assert [job.state for job in plant.jobs(folder)] == [JobState.DONE]
    assert (published_of(plant, old), published_of(plant, sha256)) == (int(point == "recorded"), 1)
    cell.recovered(f"new content is submitted while the old content's derivative is at: {point}", ended - began)
