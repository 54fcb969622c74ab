"""Lost events, and folders that are another one than a moment ago: what the watcher does about its deaf ears."""

import logging
import os
from pathlib import Path

from daemon.events import Hints
from daemon.watch import Watcher
from worker.db import Database
from worker.settings import Settings


def test_lost_events_leave_a_gap(tmp_path: Path) -> None:
    hints = Hints(tmp_path)
    assert hints.start()
    try:
        logging.getLogger("watchdog.observers.inotify_c").warning(
            "Inotify queue overflowed; filesystem events were lost"
        )
        assert hints.gap.is_set()
        hints.gap.clear()
        logging.getLogger("watchdog.observers.inotify_c").warning("something else")
        assert not hints.gap.is_set()
    finally:
        hints.stop()
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed")
    assert not hints.gap.is_set()


def test_a_replaced_root_is_listened_to_anew(tmp_path: Path, database: Database) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (tmp_path / "output").mkdir()
    settings = Settings(inbox=inbox, output=tmp_path / "output", state_dir=tmp_path / "state")
    watcher = Watcher(database, settings)
    try:
        watcher.hold()
        (root,) = watcher.watched
        first = root.hints._observer
        root.hints.gap.clear()
        watcher.hold()
        assert root.hints._observer is first
        assert not root.hints.gap.is_set()
        inbox.rename(tmp_path / "old")
        inbox.mkdir()
        watcher.hold()
        assert root.hints._observer is not first
        assert root.online and root.hints.gap.is_set()
        assert os.stat(inbox).st_ino == root.identity.inode  # type: ignore[union-attr]
    finally:
        watcher.close()
