"""Two watched folders, of which one is missing: the other one is worked off, and it too as soon as it appears."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from mounts import mount, own_mounts, tmpfs, unmount
from plant import Plant, cut_off, running

from worker.tables import JobState, Root, RootState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Second(Plant):
    """The same installation, seen from its second watched folder."""

    @property
    def inbox(self) -> Path:
        return self.installation.base / "second"

    @property
    def output(self) -> Path:
        return self.installation.base / "second output"


def both_of(base: Path) -> str:
    """The setting `roots` of such a plant."""
    return json.dumps(
        [
            {"path": str(base / path), "output": str(base / output), "name": path}
            for path, output in (("inbox", "output"), ("second", "second output"))
        ]
    )


@contextlib.contextmanager
def running_both(base: Path) -> Iterator[tuple[Plant, Second]]:
    with running(base, PHOTOCHROM_ROOTS=both_of(base)) as plant:
        yield plant, Second(plant.installation, plant.up, plant.database, plant.faults)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plant, Second]]:
    """A plant whose second folder is not there when it starts."""
    with running_both(tmp_path_factory.mktemp("roots")) as plants:
        yield plants


def second_is(plant: Plant, state: RootState, why: str = "") -> bool:
    with plant.database.reading() as session:
        root = session.query(Root).filter_by(name="second").one_or_none()
        return root is not None and root.state is state and why in root.reason


def kill_the_watcher(plant: Plant) -> None:
    before = plant.part("watch")
    cut_off(before)
    wait_for(lambda: plant._part("watch") not in (0, before), 30, "the watcher is started again")


def test_root_missing_at_start(both: tuple[Plant, Second], cell: Cell) -> None:
    plant, second = both
    wait_for(lambda: second_is(plant, RootState.OFFLINE, "not there"), 30, "the missing root is shown")
    kill_the_watcher(plant)
    beside = plant.drop("beside", 2)
    plant.settle("beside", 2)
    assert_invariants(plant, beside, "beside")
    second.inbox.mkdir()
    began = time.time()
    originals = second.drop("late", 3)
    ended = second.settle("late", 3)
    assert_invariants(second, originals, "late")
    cell.recovered("one of two roots missing at the start, the watcher killed meanwhile", ended - began)


def test_root_gone_while_the_watcher_is_killed(both: tuple[Plant, Second], cell: Cell) -> None:
    plant, second = both
    away = plant.installation.base / "away"
    second.inbox.mkdir(exist_ok=True)
    wait_for(lambda: second_is(plant, RootState.ONLINE), 30, "both are there")
    plant.arm("before_claim", "stop")
    originals = second.drop("gone", 3)
    plant.hit("before_claim")
    second.wait_jobs("gone", 3)
    second.inbox.rename(away)
    kill_the_watcher(plant)
    plant.calm()
    wait_for(lambda: second_is(plant, RootState.OFFLINE, "not there"), 30, "the root is offline")
    more = plant.drop("meanwhile", 2)
    plant.settle("meanwhile", 2)
    assert_invariants(plant, more, "meanwhile")
    assert {job.state for job in second.jobs("gone")} == {JobState.QUEUED}, "something was concluded from its absence"
    away.rename(second.inbox)
    began = time.time()
    ended = second.settle("gone", 3)
    assert {job.failures + job.lost for job in second.jobs("gone")} == {0}, "a strike was counted"
    assert_invariants(second, originals, "gone")
    cell.recovered("one of two roots gone with work queued, the watcher killed meanwhile", ended - began)


def test_root_unmounted_while_the_watcher_is_killed(tmp_path: Path, cell: Cell) -> None:
    """The watcher starts on the empty folder beneath the share, and concludes nothing from it."""
    own_mounts()
    (tmp_path / "second").mkdir()
    with tmpfs(tmp_path / "share", "16m", "share"):
        mount("--bind", tmp_path / "share", tmp_path / "second")
        try:
            with running_both(tmp_path) as (plant, second):
                before = second.drop("before", 2)
                second.settle("before", 2)
                unmount(second.inbox)
                kill_the_watcher(plant)
                wait_for(lambda: second_is(plant, RootState.OFFLINE, "It was on share"), 30, "the root is offline")
                beside = plant.drop("beside", 2)
                plant.settle("beside", 2)
                assert_invariants(plant, beside, "beside")
                mount("--bind", tmp_path / "share", second.inbox)
                began = time.time()
                originals = second.drop("after", 2)
                ended = second.settle("after", 2)
                assert_invariants(second, before, "before")
                assert_invariants(second, originals, "after")
        finally:
            unmount(tmp_path / "second")
    cell.recovered("one of two roots unmounted, the watcher killed meanwhile, then mounted again", ended - began)
