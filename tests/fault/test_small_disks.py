"""A disk of its own for the broker's file, and one for the database: full, each alone, while all others have room."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from mounts import fill, own_mounts, tmpfs
from plant import Plant, running

from worker.settings import broker_socket
from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def no_strikes(plant: Plant, folder: str) -> None:
    assert {job.failures + job.lost for job in plant.jobs(folder)} == {0}, "a strike was counted"


@pytest.fixture
def small_broker(tmp_path: Path) -> Iterator[Plant]:
    own_mounts()
    (tmp_path / "state").mkdir()
    with tmpfs(tmp_path / "state" / "broker", "4m") as folder:
        folder.chmod(0o700)
        with running(tmp_path) as plant:
            yield plant


def refuses(broker: redis.Redis) -> bool:
    """Whether it takes no message any more; each question fills its file a little more."""
    try:
        broker.set("filler", "x" * 5000)
    except redis.ResponseError as error:
        return "MISCONF" in str(error)
    return False


def test_disk_of_the_broker_full(small_broker: Plant, cell: Cell) -> None:
    """It answers, and takes nothing: scans wait in their rows, and the job in hand ends."""
    plant = small_broker
    broker = redis.Redis(unix_socket_path=str(broker_socket(plant.installation.state_dir)), socket_timeout=5)
    plant.arm("claimed", "stop")
    originals = plant.drop("held", 2)
    plant.hit("claimed")
    filler = fill(plant.installation.state_dir / "broker")
    wait_for(lambda: refuses(broker), 30, "the broker refuses to write")
    more = plant.drop("meanwhile", 3)
    jobs = plant.wait_jobs("meanwhile", 3)
    os.kill(plant.child(), signal.SIGCONT)
    wait_for(lambda: "broker_down" in plant.log("watch"), 30, "the dispatcher's message is refused")
    wait_for(lambda: any(job.state is JobState.DONE for job in plant.jobs("held")), 30, "the job in hand ends")
    assert {(job.state, job.claim_no) for job in plant.jobs("meanwhile")} == {(JobState.QUEUED, 0)}
    assert broker.info("persistence")["aof_last_write_status"] == "err"
    filler.unlink()
    began = time.time()
    ended = max(plant.settle("held", 2), plant.settle("meanwhile", len(jobs)))
    for folder, known in {"held": originals, "meanwhile": more}.items():
        no_strikes(plant, folder)
        assert_invariants(plant, known, folder)
    cell.recovered("ENOSPC on the broker's file alone: it refuses messages, a job in hand", ended - began)


@pytest.fixture
def small_database(tmp_path: Path) -> Iterator[Plant]:
    own_mounts()
    with (
        tmpfs(tmp_path / "record", "4m") as folder,
        running(tmp_path, PHOTOCHROM_DATABASE_URL=f"sqlite:///{folder / 'photochrom.db'}") as plant,
    ):
        yield plant


@pytest.mark.parametrize("point", ["claimed", "intended", "published"])
def test_disk_of_the_database_full(small_database: Plant, cell: Cell, point: str) -> None:
    """No move of a job can be recorded, and no scan; nobody is blamed, and nothing is done twice."""
    plant = small_database
    plant.arm(point, "stop")
    originals = plant.drop("held", 2)
    plant.hit(point)
    plant.wait_jobs("held", 2)
    with plant.database.engine.connect() as connection:  # else what its log has used already is room enough
        wait_for(lambda: connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)")).one()[0] == 0, 20, "emptied")
    filler = fill(plant.installation.base / "record")
    os.kill(plant.child(), signal.SIGCONT)
    more = plant.drop("meanwhile", 2)
    for part in ("watch", "worker"):
        wait_for(lambda part=part: "disk is full" in plant.log(part), 60, f"{part} cannot write to the database")
    assert plant.jobs("meanwhile") == []
    assert JobState.DONE not in {job.state for job in plant.jobs("held")}
    filler.unlink()
    began = time.time()
    ended = max(plant.settle("held", 2), plant.settle("meanwhile", 2))
    for folder, known in {"held": originals, "meanwhile": more}.items():
        assert {job.failures for job in plant.jobs(folder)} == {0}, "a strike was counted"
        assert_invariants(plant, known, folder)
    cell.recovered(f"ENOSPC on the database alone while a job is at: {point}", ended - began)
