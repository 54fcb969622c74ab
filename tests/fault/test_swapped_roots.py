"""Another folder in the place of the watched one, on the same file system: nothing is concluded from what it lacks."""

import os
import time
from collections.abc import Callable, Iterator

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from mounts import mount, own_mounts, unmount
from plant import Plant, running

from worker.tables import FileState, JobState, Root, RootState, SourceFile

pytestmark = pytest.mark.timeout(300)


def root_of(plant: Plant) -> Root:
    with plant.database.reading() as session:
        return session.query(Root).filter_by(name=str(plant.inbox)).one()


def away_and_back(
    plant: Plant, cell: Cell, folder: str, fault: str, go: Callable[[], object], come: Callable[[], object]
) -> None:
    """The folder goes while one of its jobs is about to be claimed, and comes back when all have been looked at."""
    plant.arm("before_claim", "stop")
    originals = plant.drop(folder, 3)
    plant.hit("before_claim")
    (child,) = plant.coloring()
    plant.wait_jobs(folder, 3)
    go()
    assert list(plant.inbox.iterdir()) == []
    os.kill(child, 18)  # SIGCONT: the worker finds no file, perhaps before the watcher finds another folder
    root = wait_for(lambda: (root := root_of(plant)).state is RootState.OFFLINE and root, 30, "the root is offline")
    assert f"photochrom roots accept {plant.inbox}" in root.reason
    wait_for(lambda: any(job.claim_no for job in plant.jobs(folder)), 30, "a worker has looked for its file")
    wait_for(lambda: {job.state for job in plant.jobs(folder)} == {JobState.QUEUED}, 30, "and waits")
    with plant.database.reading() as session:
        files = {row.state for row in session.query(SourceFile) if row.path.startswith(f"{folder}/".encode())}
    assert files == {FileState.SUBMITTED}, "something was concluded from the empty folder"
    come()
    began = time.time()
    ended = plant.settle(folder, 3)
    assert root_of(plant).state is RootState.ONLINE
    assert {job.failures + job.lost for job in plant.jobs(folder)} == {0}, "a strike was counted"
    assert_invariants(plant, originals, folder)
    cell.recovered(fault, ended - began)


def test_folder_swapped_for_an_empty_one(plant: Plant, cell: Cell) -> None:
    away = plant.installation.base / "inbox that was moved away"

    def go() -> None:
        plant.inbox.rename(away)
        plant.inbox.mkdir()

    def come() -> None:
        plant.inbox.rmdir()
        away.rename(plant.inbox)

    away_and_back(plant, cell, "swapped", "folder renamed, an empty one made in its place, and back", go, come)


@pytest.fixture
def bound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant whose inbox is a folder of the same disk, bound there: source and type of both are the same."""
    own_mounts()
    base = tmp_path_factory.mktemp("bound")
    for folder in ("store", "inbox"):
        (base / folder).mkdir()
    mount("--bind", base / "store", base / "inbox")
    try:
        with running(base) as plant:
            yield plant
    finally:
        while os.path.ismount(base / "inbox"):
            unmount(base / "inbox")


@pytest.mark.slow
def test_bind_mount_of_the_same_disk(bound: Plant, cell: Cell) -> None:
    def come() -> None:
        mount("--bind", bound.installation.base / "store", bound.inbox)

    fault = "bind mount of the root's own disk unmounted with work queued, and mounted again"
    away_and_back(bound, cell, "bound", fault, lambda: unmount(bound.inbox), come)
