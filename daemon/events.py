"""Hints from watchdog: which directories should be looked at soon. Events may come late, twice or never."""

import logging
import os
import threading
from pathlib import Path

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

logger = logging.getLogger(__name__)

#: opening and closing without writing are left out: we do that ourselves
EVENTS: list[type[FileSystemEvent]] = [
    DirAttribEvent, DirCreatedEvent, DirDeletedEvent, DirMovedEvent, FileAttribEvent, FileClosedEvent,
    FileCreatedEvent, FileDeletedEvent, FileModifiedEvent, FileMovedEvent,
]  # fmt: skip


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
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._lock = threading.Lock()
        self._directories: dict[bytes, bool] = {}
        self._observer: Observer | None = None  # type: ignore[valid-type]
        self.gap = threading.Event()
        self._overflows = _Overflows(self.gap)

    def start(self) -> bool:
        """Listen; False when the system has no watches left (the scan then does it alone)."""
        observer = Observer()
        observer.schedule(self, os.fsdecode(self._root), recursive=True, event_filter=EVENTS)
        try:
            observer.start()
        except OSError as error:
            logger.warning(
                "no_events",
                extra={"root": os.fsdecode(self._root), "why": f"{error}; raise fs.inotify.max_user_watches"},
            )
            return False
        self._observer = observer
        logging.getLogger("watchdog").addHandler(self._overflows)
        return True

    def stop(self) -> None:
        """Stop listening."""
        if self._observer is not None:
            logging.getLogger("watchdog").removeHandler(self._overflows)
            self._observer.stop()
            self._observer = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog's thread."""
        # "attrib": a folder that could not be read may be readable now, with all that is below it
        whole = event.is_directory and event.event_type in {"created", "moved", "attrib"}
        for path in {event.src_path, event.dest_path} - {"", b""}:
            raw = os.fsencode(path)
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
