"""A share whose files cannot be read for a while: told by errno, tried again, and never the scan's fault."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cells import Cell
from failing_share import FailingShare, failing
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from mounts import own_mounts
from plant import Plant, png, running, scan

from worker.tables import FileState, JobState, SourceFile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plant, Path, FailingShare]]:
    """A plant, the folder that its inbox shows, and what shows it."""
    own_mounts()
    base = tmp_path_factory.mktemp("reads")
    for folder in ("inbox", "store"):
        (base / folder).mkdir()
    with (
        failing(base / "store", base / "inbox") as share,
        running(base, PHOTOCHROM_SETTLE_NETWORK_S="1", PHOTOCHROM_SCAN_INTERVAL_S="2") as plant,
    ):
        yield plant, base / "store", share


def put(store: Path, folder: str) -> None:
    (store / f".{folder}").mkdir()
    (store / f".{folder}" / "0.png").write_bytes(png(scan(len(folder), 300)))
    (store / f".{folder}").rename(store / folder)


@pytest.mark.parametrize("name", ["EIO", "ESTALE"])
def test_the_decoder_cannot_read(shared: tuple[Plant, Path, FailingShare], cell: Cell, name: str) -> None:
    """The bytes were hashed; then the share fails under the decoder."""
    plant, store, share = shared
    folder = f"decode-{name}"
    plant.arm("reading", "stop")
    put(store, folder)
    plant.hit("reading")
    refused, share.fails = share.refused, getattr(errno, name)
    os.kill(plant.child(), signal.SIGCONT)
    job = wait_for(lambda: next((job for job in plant.jobs(folder) if job.not_before), None), 30, "the job waits")
    assert share.refused > refused and job.state is JobState.QUEUED
    assert os.strerror(share.fails) in job.reason
    began, share.fails = time.time(), 0
    ended = plant.settle(folder, 1)
    assert {job.failures + job.lost for job in plant.jobs(folder)} == {0}, "a strike was counted"
    assert_invariants(plant, manifest(plant.inbox / folder), folder)
    cell.recovered(f"{name} from the share while the scan is decoded", ended - began)


def test_the_watcher_cannot_read(shared: tuple[Plant, Path, FailingShare], cell: Cell) -> None:
    plant, store, share = shared
    share.fails = errno.EIO
    put(store, "hash")

    def blocked() -> bool:
        with plant.database.reading() as session:
            row = session.query(SourceFile).filter_by(path=b"hash/0.png").one_or_none()
            return row is not None and row.state is FileState.BLOCKED and "EIO" in row.reason

    wait_for(blocked, 30, "the file is blocked, and by which errno")
    assert plant.jobs("hash") == []
    began, share.fails = time.time(), 0
    ended = plant.settle("hash", 1)
    assert_invariants(plant, manifest(plant.inbox / "hash"), "hash")
    cell.recovered("EIO from the share while the scan is hashed", ended - began)
