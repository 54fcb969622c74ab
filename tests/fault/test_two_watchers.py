"""Two daemons on one database: one holds the root, and what the other one knows of it is not recorded."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from plant import Plant, cut_off, png, scan

from worker.files import ROOT_LEASE_S
from worker.tables import Job, Root

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def watcher(plant: Plant) -> str | None:
    with plant.database.reading() as session:
        return session.query(Root).one().watcher


@contextlib.contextmanager
def second_watcher(plant: Plant) -> Iterator[None]:
    """Another daemon on the same database, which nobody supervises."""
    named = {
        "PHOTOCHROM_WORKER": "second",
        "PHOTOCHROM_INBOX": str(plant.inbox),
        "PHOTOCHROM_OUTPUT": str(plant.output),
    }
    environ, log = plant.installation.environ | named, plant.installation.state_dir / "logs" / "second.log"
    with log.open("wb") as out:
        second = subprocess.Popen(plant.installation.command("watch"), env=environ, stdout=out, stderr=out)
    try:
        yield
    finally:
        second.terminate()
        second.wait(20)


def test_zombie_watcher_records_nothing(plant: Plant, cell: Cell) -> None:
    """Stopped with what it has hashed; another takes over, and new content is done; then it goes on."""
    folder = plant.inbox / "zombie-watcher"
    plant.arm("hashed", "stop")
    plant.drop(folder.name)
    stopped, zombie = plant.hit("hashed"), plant.part("watch")
    (folder / ".new").write_bytes(png(scan(77)))
    (folder / ".new").rename(folder / "0.png")
    originals = manifest(folder)
    with second_watcher(plant):
        ended = plant.settle(folder.name, 1, timeout_s=90)
        ends = plant.ends(folder.name)
        os.kill(zombie, signal.SIGCONT)
        wait_for(lambda: plant.told("watch", "watched_by_another"), 30, "it sees that it is not its folder any more")
        assert (watcher(plant) or "").startswith("second")
    wait_for(lambda: watcher(plant) not in (None, "") and not (watcher(plant) or "").startswith("second"), 60, "heir")
    more = plant.drop("after the zombie")
    plant.settle("after the zombie", 1)
    assert plant.ends(folder.name) == ends
    with plant.database.reading() as session:
        assert len(session.query(Job).filter_by(path=b"zombie-watcher/0.png").all()) == 1, "old content was submitted"
    assert_invariants(plant, originals, folder.name)
    assert_invariants(plant, more, "after the zombie")
    cell.recovered("SIGSTOP of the watcher with what it has hashed, then SIGCONT", ended - stopped - ROOT_LEASE_S,
                   "counted from the lease's end")  # fmt: skip


def test_second_watcher_stands_by(plant: Plant, cell: Cell) -> None:
    """Two daemons on one database: one holds the root; when it dies, the other has it."""
    before = watcher(plant)
    with second_watcher(plant):
        originals = plant.drop("two-daemons", 4)
        plant.settle("two-daemons", 4)
        time.sleep(6)
        assert watcher(plant) == before
        assert_invariants(plant, originals, "two-daemons")
        began = time.time()
        cut_off(plant.part("watch"))
        wait_for(lambda: watcher(plant) not in (None, before), 45, "the root has a watcher again")
        more = plant.drop("heir", 2)
        ended = plant.settle("heir", 2)
        assert_invariants(plant, more, "heir")
    cell.recovered("two watchers on one database; the one that holds the root is killed", ended - began)
