"""Lost events, and folders that are another one than a moment ago: what the watcher does about its deaf ears."""

import logging
import os
import threading
import time
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver

from daemon.events import Hints
from daemon.watch import Watcher
from worker.db import Database
from worker.settings import Settings


def test_lost_events_leave_a_gap(tmp_path: Path) -> None:
    hints = Hints(tmp_path)
    assert hints.start()
    hints.gap.clear()
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


def test_what_happened_while_folders_were_still_being_listened_to_is_a_gap(tmp_path: Path) -> None:
    hints = Hints(tmp_path)
    assert hints.start()
    hints.stop()
    assert hints.gap.is_set()


def test_listening_that_was_stopped_before_it_had_begun_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that does not answer holds up the start, for days perhaps; the root was mounted anew since."""
    hints, held, go_on = Hints(tmp_path), threading.Event(), threading.Event()
    make = hints._make_observer

    def slow() -> BaseObserver:
        held.set()
        go_on.wait(30)
        return make()

    monkeypatch.setattr(hints, "_make_observer", slow)
    before = set(threading.enumerate())
    first = threading.Thread(target=hints.start)
    first.start()
    assert held.wait(30)
    hints.stop()
    go_on.set()
    first.join(30)
    assert hints._observer is None
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, "a thread goes on"
        time.sleep(0.01)


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
