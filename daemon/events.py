"""Hints from watchdog: which directories should be looked at soon. Events may come late, twice or never."""

import errno
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from daemon import ignoring, scan

if sys.platform == "linux":
    from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
    from watchdog.observers.inotify_c import InotifyFD

logger = logging.getLogger(__name__)

#: opening and closing without writing are left out: we do that ourselves
EVENTS: list[type[FileSystemEvent]] = [
    DirAttribEvent, DirCreatedEvent, DirDeletedEvent, DirMovedEvent, FileAttribEvent, FileClosedEvent,
    FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent,
]  # fmt: skip


#: what the system says when it has no watch left to give, or no memory for one
_NONE_LEFT: Final = frozenset({errno.ENOSPC, errno.ENOMEM, errno.EMFILE})

if sys.platform == "linux":

    class _Watches(InotifyFD):
        """Puts no watches on ignored folders, and tells when there are none left.

        watchdog itself passes over every folder that it cannot watch, and says nothing (7.1, inotify.py).
        """

        def __init__(self, is_ignored: Callable[[bytes], bool], none_left: Callable[[OSError], None]) -> None:
            super().__init__()
            self._is_ignored = is_ignored
            self._none_left = none_left

        def add_callback(self, path: bytes, *arguments: Any) -> Any:
            """Called for every folder, by watchdog's threads."""
            if self._is_ignored(path):
                raise OSError(errno.ECANCELED, "ignored", os.fsdecode(path))
            try:
                return super().add_callback(path, *arguments)
            except OSError as error:
                if error.errno in _NONE_LEFT:
                    self._none_left(error)
                raise

    class _Observer(InotifyObserver):
        """watchdog's own, with our watches."""

        def __init__(self, watches: _Watches) -> None:
            self._inotify_fd = watches
            self._inotify_fd.start()
            BaseObserver.__init__(self, InotifyEmitter, inotify_fd=watches)


class _Overflows(logging.Handler):
    """watchdog says that the kernel dropped events by a line in its log, and by nothing else (7.1, inotify_c.py)."""

    def __init__(self, told: threading.Event) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        """Called by watchdog's reader thread."""
        if "overflow" in record.msg:
            self._told.set()


class Hints(FileSystemEventHandler):
    """Collects the directories of a root in which something happened.

    Attributes:
        gap: set when events were lost, so that only a scan can tell what happened; whoever scans clears it.
        outdated: set when other folders are ignored than when the watches were put; a new start puts them anew.
        none_left: why some folders are not listened to; empty when all are.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._lock = threading.Lock()
        self._directories: dict[bytes, bool] = {}
        self._observer: BaseObserver | None = None
        self._wanted: object = None  # which start is the last one
        self.gap = threading.Event()
        self.outdated = threading.Event()
        self.none_left = ""
        self._overflows = _Overflows(self.gap)

    def start(self) -> bool:
        """Listen; False when the system has no watches left (the scan then does it alone).

        Every folder is looked at, which takes minutes where there are very many, and for ever on a share in one of them
        that does not answer; if `stop` is called meanwhile, nothing is listened to afterwards.
        """
        self._wanted = this = object()
        self.outdated.clear()
        self.none_left = ""
        observer: BaseObserver | None = None
        try:
            observer = self._make_observer()
            observer.schedule(self, os.fsdecode(self._root), recursive=True, event_filter=EVENTS)
            observer.start()
        except OSError as error:
            self._note_none_left(error)
            if observer is not None:
                observer.on_thread_stop()  # its reader is a thread of its own, which has started
            return False
        with self._lock:
            if self._wanted is this:
                self._observer = observer
                logging.getLogger("watchdog").addHandler(self._overflows)
                self.gap.set()  # whatever happened before the last folder was listened to
                return True
        observer.stop()
        return False

    def _make_observer(self) -> BaseObserver:
        if sys.platform == "linux":
            return _Observer(_Watches(self._is_ignored, self._note_none_left))
        return Observer()

    def _is_ignored(self, folder: bytes) -> bool:
        below = os.path.relpath(folder, self._root)
        return below != b"." and scan.ignored_path(below, self._root, directory=True) is not None

    def _note_none_left(self, error: OSError) -> None:
        if not self.none_left:
            logger.warning("no_events", extra={"root": os.fsdecode(self._root), "why": str(error)})
        self.none_left = f"Not all of its folders can be listened to ({error.strerror}), so it is scanned"
        if error.errno in _NONE_LEFT:
            self.none_left += "; raise fs.inotify.max_user_watches and max_user_instances, then start Photochrom again"

    def stop(self) -> None:
        """Stop listening."""
        with self._lock:
            self._wanted, observer, self._observer = None, self._observer, None
        if observer is not None:
            logging.getLogger("watchdog").removeHandler(self._overflows)
            observer.stop()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog's thread."""
        # "attrib": a folder that could not be read may be readable now, with all that is below it
        whole = event.is_directory and event.event_type in {"created", "moved", "attrib"}
        for path in {event.src_path, event.dest_path} - {"", b""}:
            raw = os.fsencode(path)
            if os.path.basename(raw) == ignoring.NAME:
                self.outdated.set()
            self._add(raw if whole else os.path.dirname(raw), deep=whole)

    def _add(self, directory: bytes, *, deep: bool) -> None:
        below = os.path.relpath(directory, self._root)
        if below.startswith(b".."):
            return
        with self._lock:
            key = b"" if below == b"." else below
            self._directories[key] = deep or self._directories.get(key, False)

    def take(self) -> list[tuple[bytes, bool]]:
        """The directories (below the root) hinted at since the last call, and whether to look below them too."""
        with self._lock:
            taken, self._directories = self._directories, {}
        return list(taken.items())
