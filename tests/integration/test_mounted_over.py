"""A share that is mounted over a watched folder with the same files, or below it, has the settle time of shares."""

from pathlib import Path

import pytest

from daemon import roots, watch
from daemon.watch import Watcher
from worker.db import Database
from worker.mounts import Mount
from worker.settings import Settings
from worker.tables import Root


def test_mode_and_settle_time_follow(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in", "out", "copy"):
        (tmp_path / name).mkdir()
    for name in ("in", "copy"):
        (tmp_path / name / "a.png").write_bytes(b"a")
    watcher = Watcher(database, Settings(inbox=tmp_path / "in", output=tmp_path / "out", state_dir=tmp_path / "state"))
    (root,) = watcher.watched
    deaf = list[bool]()
    monkeypatch.setattr(root.hints, "start", lambda: True)
    monkeypatch.setattr(root.hints, "stop", lambda: deaf.append(True))
    watcher.hold()
    root.reconciler.full_scan(lambda: True)
    (tmp_path / "in").rename(tmp_path / "old")
    (tmp_path / "copy").rename(tmp_path / "in")
    share = Mount(point=str(tmp_path / "in"), source="nas:/in", fs_type="nfs4", device="0:9", mount_id="9")
    for module in (roots, watch):
        monkeypatch.setattr(module, "mount_of", lambda *_: share)
    watcher.hold()
    assert deaf, "watches on what was there before hear nothing of it"
    with database.reading() as session:
        assert session.get_one(Root, root.settings.key).mode == "scan"
    assert root.reconciler.tracker.settle_s == 15


def test_of_a_share_below_too(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    watcher = Watcher(database, Settings(inbox=tmp_path / "in", output=tmp_path / "out", state_dir=tmp_path / "state"))
    (root,) = watcher.watched
    monkeypatch.setattr(root.hints, "start", lambda: True)
    watcher.hold()
    share = Mount(point=str(tmp_path / "in" / "nas"), source="nas:/in", fs_type="nfs4", device="0:9", mount_id="9")
    for below, settle_s in (({b"nas": share}, 15), ({}, 5)):
        monkeypatch.setattr(roots, "mounts_below", lambda *_, below=below: below)
        watcher.hold()
        assert root.reconciler.tracker.settle_s == settle_s
