"""Another folder in the place of the recorded one: what is the same after all, and what must wait for a person."""

import dataclasses
import os
import re
import shutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rows_made import source_file

from daemon.cli import main
from daemon.watch import Watcher
from worker import identity, pipeline
from worker.db import Database
from worker.errors import ScanUnreadable, ScanVanished
from worker.settings import Settings
from worker.tables import FileState, Job, Root, RootState, SourceFile

DISK = {"source": "/dev/sda1", "device": os.makedev(8, 1), "inode": 99, "place": "/scans"}
SHARE = {"source": "nas:/export", "device": os.makedev(0, 50), "inode": 2, "place": "/"}


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (DISK, {}),
        (DISK, {"place": "/renamed above/scans"}),
        (DISK, {"device": os.makedev(8, 17)}),  # after a restart
        (SHARE, {"device": os.makedev(0, 61), "mount_id": "7"}),  # after a remount
        (SHARE, {"source": "NAS:/export/"}),
        ({"source": "/dev/sda1"}, {"inode": 7, "place": "/x"}),  # recorded by a release that noted no more
        ({**DISK, "place": None}, {"place": None}),
    ],
)
def test_the_same_folder(was: dict[str, Any], now: dict[str, Any]) -> None:
    assert identity.another(was, "xfs", was | now, "xfs") == ""


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        (DISK, {"inode": 100}, r"/scans \(inode 99\) of /dev/sda1 and is now /scans \(inode 100\)"),  # mv, mkdir
        (DISK, {"inode": 100, "place": "/mnt"}, "is now /mnt"),  # what was bound there is bound no more
        (SHARE, {"inode": 3}, "inode 3"),  # the server exports another folder under the same name
        ({**SHARE, "inode": 256}, {"place": "/@other"}, "is now /@other"),  # btrfs: each subvolume is inode 256
        (DISK, {"source": "/dev/sdb1"}, r"It was on /dev/sda1 \(xfs\) and is now on /dev/sdb1 \(xfs\)"),
        (DISK, {"inode": 1, "place": "/\udcff"}, r"is now /\\xff \(inode 1\)"),
    ],
)
def test_another_folder(was: dict[str, Any], now: dict[str, Any], says: str) -> None:
    assert re.search(says, identity.another(was, "xfs", was | now, "xfs"))


@dataclasses.dataclass
class Place:
    """A watcher on a folder of twenty recorded files."""

    inbox: Path
    settings: Settings
    watcher: Watcher
    database: Database

    def hold(self) -> Root:
        self.watcher.hold()
        with self.database.reading() as session:
            root = session.get_one(Root, str(self.inbox))
        assert self.watcher.watched[0].online == (root.state is RootState.ONLINE)
        return root

    def states(self) -> set[str]:
        with self.database.reading() as session:
            return {row.state.value for row in session.query(SourceFile)}


@pytest.fixture
def place(state_dir: Path, state_database: Database, tmp_path: Path) -> Iterator[Place]:
    inbox = tmp_path / "inbox"
    (tmp_path / "output").mkdir()
    _fill(inbox, 20)
    with state_database.writing() as session:
        for number in range(20):
            file = source_file(f"box/{number}.tif".encode(), root=str(inbox))
            file.state = FileState.SUBMITTED
            session.add(file)
    settings = Settings(inbox=inbox, output=tmp_path / "output", state_dir=state_dir)
    watcher = Watcher(state_database, settings)
    try:
        yield Place(inbox, settings, watcher, state_database)
    finally:
        watcher.close()


def _fill(folder: Path, count: int) -> None:
    (folder / "box").mkdir(parents=True)
    for number in range(count):
        (folder / "box" / f"{number}.tif").write_bytes(bytes(10))


def _swap(place: Place) -> Path:
    away = place.inbox.with_name("away")
    place.inbox.rename(away)
    place.inbox.mkdir()
    return away


def test_an_empty_folder_in_its_place_is_offline_until_the_right_one_is_back(place: Place) -> None:
    assert place.hold().state is RootState.ONLINE
    away = _swap(place)
    for _ in range(2):
        root = place.hold()
        assert root.state is RootState.OFFLINE and f"photochrom roots accept {place.inbox}" in root.reason
    assert place.states() == {"submitted"}
    place.inbox.rmdir()
    away.rename(place.inbox)
    root = place.hold()
    assert (root.state, root.reason, "refused" in root.identity) == (RootState.ONLINE, "", False)


@pytest.mark.parametrize(("there", "state"), [(16, RootState.ONLINE), (15, RootState.OFFLINE)])
def test_another_folder_with_the_files_of_the_record_is_the_one_from_now_on(
    place: Place, there: int, state: RootState
) -> None:
    """Restored from a backup, or on a file system that numbers anew at every mount."""
    place.hold()
    place.inbox.rename(place.inbox.with_name("away"))
    _fill(place.inbox, there)
    assert place.hold().state is state
    if state is RootState.ONLINE:
        assert str(place.inbox.stat().st_ino) in place.hold().identity


def test_files_of_another_size_are_not_those_of_the_record(place: Place) -> None:
    place.hold()
    _swap(place)
    shutil.copytree(place.inbox.with_name("away"), place.inbox, dirs_exist_ok=True)
    for file in (place.inbox / "box").iterdir():
        file.write_bytes(bytes(11))
    assert place.hold().state is RootState.OFFLINE


def test_a_person_may_accept_what_was_refused(place: Place) -> None:
    place.hold()
    refused = CliRunner().invoke(main, ["roots", "accept", str(place.inbox)])
    assert refused.exit_code == 1 and "was refused" in refused.stderr
    _swap(place)
    assert place.hold().state is RootState.OFFLINE
    accepted = CliRunner().invoke(main, ["roots", "accept", str(place.inbox)])
    assert accepted.exit_code == 0, accepted.output
    assert place.hold().state is RootState.ONLINE
    assert place.watcher.watched[0].reconciler.full_scan(lambda: True)
    assert place.states() == {"vanished"}
    assert CliRunner().invoke(main, ["roots", "accept", "nowhere"]).exit_code == 1


def test_an_archive_that_was_emptied_is_empty(place: Place) -> None:
    """The same folder: its files were deleted by somebody, whenever the watcher comes to see it."""
    place.hold()
    shutil.rmtree(place.inbox / "box")
    assert place.hold().state is RootState.ONLINE
    assert place.watcher.watched[0].reconciler.full_scan(lambda: True)
    assert place.states() == {"vanished"}


def test_the_sample_is_spread_over_the_record(database: Database) -> None:
    with database.writing() as session:
        for number in range(1000):
            session.add(source_file(b"%d.tif" % number, root="big"))
            session.add(source_file(b"other %d.tif" % number, root="other"))
    with database.reading() as session:
        assert identity.sample(session, "nothing") == []
        paths = [int(path.removesuffix(b".tif")) for path, _ in identity.sample(session, "big")]
    assert len(paths) == identity.SAMPLE_FILES
    assert [sum(low <= path < low + 250 for path in paths) for low in (0, 250, 500, 750)] == [8, 8, 8, 8]


def test_a_worker_asks_whether_its_own_host_has_the_folder(place: Place) -> None:
    root = place.hold()
    assert identity.is_recorded_here(place.database, root)
    away = _swap(place)  # seen by the worker before the watcher
    assert not identity.is_recorded_here(place.database, root)
    place.inbox.rmdir()
    assert not identity.is_recorded_here(place.database, root)
    shutil.copytree(away, place.inbox)  # as a host sees it that numbers inodes by itself
    assert identity.is_recorded_here(place.database, root)
    root.state = RootState.OFFLINE
    assert not identity.is_recorded_here(place.database, root)


def test_a_job_ends_as_vanished_only_in_the_folder_of_the_record(place: Place) -> None:
    place.hold()
    job = Job(root=str(place.inbox), path=b"box/0.tif", error_class="missing")  # it was missing before, too
    bench: Any = types.SimpleNamespace(database=place.database)
    error = ScanVanished("It was gone when its turn came.")
    assert pipeline._missing(bench, job, error) is error
    _swap(place)
    assert isinstance(pipeline._missing(bench, job, error), ScanUnreadable)
    place.hold()
    told = pipeline._missing(bench, job, error)
    assert isinstance(told, ScanUnreadable) and "photochrom roots accept" in str(told)


def test_a_job_waits_for_a_share_below_the_root_that_is_not_mounted(place: Place) -> None:
    """Its folder is there, and empty: that is what a mount point looks like."""
    place.hold()
    with place.database.writing() as session:
        identity.note_shares(session, str(place.inbox), {b"box"})
    place.hold()  # which renews the rest of what is known of the root
    job = Job(root=str(place.inbox), path=b"box/0.tif", error_class="missing")
    bench: Any = types.SimpleNamespace(database=place.database)
    error = ScanVanished("It was gone when its turn came.")
    (place.inbox / "box").rename(place.inbox.with_name("stored"))
    assert pipeline._missing(bench, job, error) is error
    (place.inbox / "box").mkdir()
    told = pipeline._missing(bench, job, error)
    assert isinstance(told, ScanUnreadable) and "box is not mounted" in str(told)
    (place.inbox / "box" / "1.tif").touch()  # used as an ordinary folder
    assert pipeline._missing(bench, job, error) is error
