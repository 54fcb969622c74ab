"""Watches: ignored folders take none, and a root for which none are left is scanned and says so."""

import ctypes
import errno
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli import main
from daemon.events import Hints
from daemon.watch import Watcher
from worker.db import Database
from worker.settings import Settings

if sys.platform != "linux":
    pytest.skip("inotify is Linux's", allow_module_level=True)
from watchdog.observers import inotify_c


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def watched_folders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that a watch was put on, in order; one whose name begins with `none_left` gets none."""
    real, told = inotify_c.inotify_add_watch, list[str]()

    def add(descriptor: int, path: bytes, mask: int) -> int:
        if os.path.basename(path).startswith(b"none_left"):
            ctypes.set_errno(errno.ENOSPC)
            return -1
        told.append(os.fsdecode(path))
        return real(descriptor, path, mask)

    monkeypatch.setattr(inotify_c, "inotify_add_watch", add)
    return told


@pytest.mark.parametrize("there_at_the_start", [True, False])
def test_watches_that_run_out_make_a_root_scanned_and_status_says_why(
    tmp_path: Path, state_dir: Path, state_database: Database, watched_folders: list[str], there_at_the_start: bool
) -> None:
    inbox = tmp_path / "inbox"
    for folder in (inbox, tmp_path / "output"):
        folder.mkdir()
    if there_at_the_start:
        (inbox / "none_left").mkdir()
    watcher = Watcher(state_database, Settings(inbox=inbox, output=tmp_path / "output", state_dir=state_dir))
    try:
        watcher.hold()
        (root,) = watcher.watched
        (inbox / "none_left too").mkdir()
        _until(lambda: root.hints.none_left)
        watcher.hold()
        assert root.mode == "scan" and root.online
        watcher.hold()
        (told,) = json.loads(CliRunner().invoke(main, ["status", "--json"]).output)["roots"]
        assert (told["mode"], told["state"], told["reason"]) == ("scan", "online", "")
        assert "inotify watch limit reached" in told["mode_reason"] and "max_user_watches" in told["mode_reason"]
        assert told["mode_reason"] in CliRunner().invoke(main, ["status"]).output
        root.hints.take()
        (inbox / "a.png").touch()
        _until(lambda: (b"", False) in root.hints.take())  # what is listened to still hints
    finally:
        watcher.close()


def test_a_root_that_can_be_listened_to_has_no_reason(tmp_path: Path, watched_folders: list[str]) -> None:
    (tmp_path / "box").mkdir()
    hints = Hints(tmp_path)
    assert hints.start()
    hints.stop()
    assert (hints.none_left, watched_folders) == ("", [str(tmp_path), str(tmp_path / "box")])


def test_no_instance_left_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        ctypes.set_errno(errno.EMFILE)
        return -1

    monkeypatch.setattr(inotify_c, "inotify_init", refuse)
    hints = Hints(tmp_path)
    assert not hints.start()
    assert "inotify instance limit reached" in hints.none_left


def test_ignored_folders_take_no_watches(tmp_path: Path, watched_folders: list[str]) -> None:
    for folder in ("box/deep", ".hidden/deep", "box/@eaDir", "left alone/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".photochromignore").write_text("/left alone/\n")
    hints = Hints(tmp_path)
    assert hints.start()
    try:
        assert sorted(watched_folders) == [str(tmp_path), str(tmp_path / "box"), str(tmp_path / "box/deep")]
        watched_folders.clear()
        (tmp_path / ".hidden").rename(tmp_path / "shown")  # as one who writes a folder and renames it at the end
        (tmp_path / "box" / ".later").mkdir()
        (tmp_path / "last").mkdir()
        _until(lambda: str(tmp_path / "last") in watched_folders)
        assert sorted(watched_folders) == [str(tmp_path / name) for name in ("last", "shown", "shown/deep")]
        (tmp_path / "shown" / "deep" / "a.png").touch()
        seen: dict[bytes, bool] = {}
        _until(lambda: seen.update(hints.take()) or b"shown/deep" in seen)
        assert not hints.outdated.is_set()
        (tmp_path / ".photochromignore").unlink()
        _until(hints.outdated.is_set)
    finally:
        hints.stop()


def test_folders_that_are_ignored_no_longer_are_listened_to(tmp_path: Path, database: Database) -> None:
    inbox = tmp_path / "inbox"
    (inbox / "box").mkdir(parents=True)
    (tmp_path / "output").mkdir()
    (inbox / ".photochromignore").write_text("box/\n")
    watcher = Watcher(database, Settings(inbox=inbox, output=tmp_path / "output", state_dir=tmp_path / "state"))
    try:
        watcher.hold()
        (root,) = watcher.watched
        (inbox / ".photochromignore").unlink()
        _until(root.hints.outdated.is_set)
        root.hints.gap.clear()
        watcher.hold()
        assert root.hints.gap.is_set() and not root.hints.outdated.is_set() and root.mode == "events"
        (inbox / "box" / "a.png").touch()
        seen: dict[bytes, bool] = {}
        _until(lambda: seen.update(root.hints.take()) or b"box" in seen)
    finally:
        watcher.close()
