"""Writers on another host: the share shows their files, and no lease tells that they are open there."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cells import Cell
from failing_share import failing
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from mounts import own_mounts
from plant import Plant, png, running, scan

from daemon.intake import has_writer
from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plant, Path]]:
    """A plant, and the folder on the server that its inbox shows."""
    own_mounts()
    base = tmp_path_factory.mktemp("remote")
    for folder in ("inbox", "store"):
        (base / folder).mkdir()
    environ = {"PHOTOCHROM_SETTLE_NETWORK_S": "1", "PHOTOCHROM_SCAN_INTERVAL_S": "2", "PHOTOCHROM_RETRY_S": "1"}
    with failing(base / "store", base / "inbox"), running(base, **environ) as plant:
        yield plant, base / "store"


def is_taken(plant: Plant, folder: str) -> bool:
    """Whether the file was taken for whole, and its job has ended one way or another."""
    return any(job.state not in {JobState.QUEUED, JobState.RUNNING} for job in plant.jobs(folder))


def allocated(path: Path, data: bytes, taken: Callable[[], object]) -> None:
    """The size is final from the start; the times of the end are those of the beginning, as a copy keeps them."""
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, len(data))
        times = path.stat()
        taken()
        file.write(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def in_two_parts(path: Path, data: bytes, taken: Callable[[], object]) -> None:
    """A pause in the middle that is longer than any settle time."""
    with path.open("wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        taken()
        file.write(data[len(data) // 2 :])


@pytest.mark.parametrize("write", [allocated, in_two_parts])
def test_writer_on_another_host(
    shared: tuple[Plant, Path], cell: Cell, write: Callable[[Path, bytes, Callable[[], object]], None]
) -> None:
    """What was taken of it is no picture and is superseded: only the whole one has a derivative."""
    plant, store = shared
    folder = write.__name__
    (store / folder).mkdir()
    half = []

    def taken() -> None:
        descriptor = os.open(plant.inbox / folder / "0.png", os.O_RDONLY)
        assert not has_writer(descriptor), "the lease tells of the writer: nothing is tried"
        os.close(descriptor)
        wait_for(lambda: is_taken(plant, folder), 60, "the file is taken as it is")
        half.extend(plant.jobs(folder))
        assert list((plant.output / folder).rglob("*.png")) == [], "half a scan was coloured"

    write(store / folder / "0.png", png(scan(len(folder), 700)), taken)
    began, originals = time.time(), manifest(plant.inbox / folder)
    last = originals[os.fsencode(plant.inbox / folder / "0.png")][0]
    assert half and half[0].source_sha256 != last
    wait_for(lambda: [job.source_sha256 for job in plant.jobs(folder)] == [last], 60, "the whole content is submitted")
    ended = plant.settle(folder, 1)
    assert_invariants(plant, originals, folder)
    cell.recovered(f"writer on another host, its file taken meanwhile: {folder.replace('_', ' ')}", ended - began)
