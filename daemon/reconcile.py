"""One root's files against the record: what is new, touched, gone or settled. Only differences are written."""

import collections
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy.orm import Session

from daemon import intake, scan
from daemon.shares import Shares
from daemon.stability import RetryClock, StabilityTracker
from worker import curated, fault, files, jobs, outbox, versions
from worker.db import Database
from worker.errors import JobMoved
from worker.tables import FileState, SourceFile

logger = logging.getLogger(__name__)

#: settled files are recorded in lots, so that a burst of small files costs few transactions
LOT_FILES: Final = 100
LOT_S: Final = 0.5

Outcome = intake.Taken | intake.NotTaken


class Reconciler:
    """Brings the record of one root up to date with its folder."""

    def __init__(
        self,
        database: Database,
        name: str,
        path: bytes,
        settle_s: float,
        priority: int,
        held: Callable[[bytes, Callable[[], bool]], intake.NotTaken | None] = lambda path, go_on: None,
        model: str = "",
        refuse: Callable[[Session], None] = lambda session: None,
    ) -> None:
        """A watched root, and how its files become jobs.

        Args:
            database: where the record is.
            name: the root's name.
            path: where it is.
            settle_s: how long a file has to be quiet, seconds.
            priority: of its jobs, 0 (first) to 9.
            held: says why a settled file has to wait for others, unless it need not; it too asks `go_on`.
            model: the version or alias that its jobs are bound to; empty: the champion when they are worked on.
            refuse: raises in each transaction that records what was seen, when that is not ours to record any more.
        """
        self.database = database
        self._held = held
        self.name = name
        self.path = path
        self.priority = priority
        self._model = model
        self._refuse = refuse
        self.tracker = StabilityTracker(settle_s)
        self._shares = Shares(database, name, path)
        self._waiting: set[bytes] = set()  # folders right below the root in which files were held
        self._released: set[bytes] = set()  # those of them in which one was not any more
        self._unread = RetryClock[files.Stamp]()  # files that could not be read
        self._unlisted = RetryClock[bool]()  # folders that could not be listed (True), or something in them looked at

    @contextlib.contextmanager
    def _recording(self) -> Iterator[Session]:
        with self.database.writing() as session:
            self._refuse(session)
            yield session

    def full_scan(self, go_on: Callable[[], bool]) -> bool:
        """A complete look at the root; what settles meanwhile is taken meanwhile.

        Args:
            go_on: asked after each listing, whether the folder is still the one that is meant.

        Returns:
            Whether it was complete, but for what is recorded as blocked; not when `go_on()` turned false.
        """
        began_s, count = time.monotonic(), 0
        self._shares.note()
        for listing in scan.walk(self.path):
            if not go_on() or listing.gone:
                return False
            self.reconcile(listing)
            count += len(listing.files) + len(listing.blocked) + bool(listing.error)
            self.take_settled(go_on)
        self._note_missing_directories(go_on)
        self._retry_what_came_back()
        with self._recording() as session:
            files.scanned(session, self.name, seconds=time.monotonic() - began_s, files=count)
        return True

    def look_at(self, directory: bytes, *, deep: bool, go_on: Callable[[], bool] = lambda: True) -> None:
        """Follow a hint, unless it is about a directory whose name says that no scans are in it."""
        while len(directory) > scan.LONGEST_PATH_BYTES:  # no scan looks into it: the first that is too long is blocked
            directory, deep = os.path.dirname(directory), False
        if scan.ignored_path(directory, self.path, directory=True):
            return
        for listing in scan.walk(self.path, directory) if deep else [scan.list_directory(self.path, directory)]:
            if not go_on() or listing.gone:
                return
            self.reconcile(listing)

    def reconcile(self, listing: scan.Listing) -> None:
        """Compare one directory with its record."""
        with self.database.reading() as session:
            known = files.in_directory(session, self.name, listing.directory)
        touched = [path for path, stamp in listing.files.items() if self._observe(path, stamp, known.get(path))]
        gone = self._gone(listing, known)
        left_alone = {path: pattern for path in gone if (pattern := scan.left_alone(self.path, path))}
        gone = [path for path in gone if path not in left_alone or known[path].state is not FileState.IGNORED]
        blocked = self._blocked(listing, known)
        readable = not listing.error and (listing.directory in self._unlisted or listing.directory in known)
        self._note_retries(listing, known)
        if not (touched or gone or blocked or readable):
            return
        with self._recording() as session:
            for path in touched:
                if path in known:
                    files.put(session, known[path].id, FileState.SETTLING, "It was touched; it must be quiet first.")
                else:
                    files.found(session, self.name, path, listing.files[path])
            for path in gone:
                files.let_go(session, known[path], left_alone.get(path))
            for path, why in blocked.items():
                files.block(session, self.name, path, why)
            if readable:
                files.unblock(session, self.name, listing.directory)
        for path in (*gone, *blocked):
            self.tracker.forget(path)
            self._unread.forget(path)

    def _note_retries(self, listing: scan.Listing, known: dict[bytes, files.Known]) -> None:
        if listing.error or listing.blocked:
            self._unlisted.note(listing.directory, bool(listing.error), time.monotonic())
        else:
            self._unlisted.forget(listing.directory)
        for path, row in known.items():  # noted by a watcher before this one
            if row.state is FileState.BLOCKED and path not in self._unlisted and path in listing.subdirectories:
                self._unlisted.note(path, True, time.monotonic())

    def _look_again(self, go_on: Callable[[], bool]) -> None:
        """Look at folders that could not be read, and below them once they can."""
        for directory, unlisted in self._unlisted.due(time.monotonic()):
            listing = scan.list_directory(self.path, directory)
            if not go_on() or listing.gone:
                return
            self.reconcile(listing)
            for below in listing.subdirectories if unlisted and listing.complete else []:
                self.look_at(below, deep=True, go_on=go_on)

    def _gone(self, listing: scan.Listing, known: dict[bytes, files.Known]) -> list[bytes]:
        """Recorded files that are certainly no longer there."""
        gone = [
            path
            for path, row in known.items()
            if row.state is not FileState.VANISHED and listing.lacks(path, blocked=row.state is FileState.BLOCKED)
        ]
        return [] if gone and self._shares.is_away(listing.directory) else gone

    def _blocked(self, listing: scan.Listing, known: dict[bytes, files.Known]) -> dict[bytes, str]:
        """What has to be recorded as blocked: path below the root → why. What has a job already keeps its state."""
        blocked = {
            path: f"It cannot be looked at ({why}); it is tried again by itself."
            for path, why in listing.blocked.items()
            if path not in known or known[path].state not in {FileState.SUBMITTED, FileState.IGNORED}
        }
        if listing.error:
            logger.warning("directory_unreadable", extra={"directory": listing.directory, "why": listing.error})
            blocked[listing.directory] = f"It cannot be listed ({listing.error}); its files are taken when it can be."
        return blocked

    def _observe(self, path: bytes, stamp: files.Stamp, row: files.Known | None) -> bool:
        """Let a file settle if it has to; True when the record must change for that."""
        if row is not None and row.state in {FileState.SUBMITTED, FileState.IGNORED} and row.stamp == stamp:
            return False
        self.tracker.observe(path, stamp, time.monotonic())
        return row is None or row.state not in {FileState.SETTLING, FileState.BLOCKED}

    def _note_missing_directories(self, go_on: Callable[[], bool]) -> None:
        """Page by page: a share may take long to answer, and no transaction is open meanwhile."""
        last: bytes | None = None
        while True:
            with self.database.reading() as session:
                page = files.directories(session, self.name, last)
            missing = [path for path, waits in page.items() if scan.is_out_of_sight(self.path, path, waits)]
            if not page or not go_on():  # asked after the look: what is gone with its root has not vanished
                return
            for directory in missing:
                self.reconcile(scan.Listing(directory))
            last = next(reversed(page))

    def _retry_what_came_back(self) -> None:
        """A job may have missed its file while the root was away, and the scan sees no difference."""
        last = 0
        while True:
            with self.database.reading() as session:
                page = outbox.missed(session, self.name, last)
            if not page:
                return
            for job_id in [job_id for job_id, path in page if scan.is_file(self.path, path)]:
                # unless an operator was quicker
                with contextlib.suppress(JobMoved), self._recording() as session:
                    jobs.retry(session, job_id, note="the file came back")
            last = page[-1][0]

    def take_settled(self, go_on: Callable[[], bool] = lambda: True) -> None:
        """Hash and submit what has been quiet for long enough, until `go_on()` turns false."""
        self._look_again(go_on)
        for lot in self._lots(go_on):
            fault.point("hashed")
            with self._recording() as session:
                together = collections.defaultdict[FileState, list[tuple[bytes, str, files.Stamp]]](list)
                for path, outcome in lot:
                    if isinstance(outcome, intake.NotTaken) and outcome.stamp is not None:
                        together[outcome.state].append((path, outcome.reason, outcome.stamp))
                    else:
                        self._record(session, path, outcome)
                for state, not_taken in together.items():  # tens of thousands that are none of ours, or wait for a box
                    files.put_by_path(session, self.name, state, not_taken)
                fault.point("submitting")
            fault.point("submitted")
        while self._released:
            self.look_at(self._released.pop(), deep=True, go_on=go_on)

    def _note_held(self, path: bytes, held: bool) -> None:
        """Remember where files wait for each other: once one need not, no event tells of the others."""
        box = path.partition(b"/")[0]
        if held:
            self._waiting.add(box)
        elif box in self._waiting:
            self._waiting.discard(box)
            self._released.add(box)

    def _lots(self, go_on: Callable[[], bool]) -> Iterator[list[tuple[bytes, Outcome]]]:
        lot: list[tuple[bytes, Outcome]] = []
        began_s = time.monotonic()
        settled = dict(self._unread.due(time.monotonic())) | dict(self.tracker.settled(time.monotonic()))
        for path, quiet in sorted(settled.items(), key=lambda item: not intake.promises_picture(item[0])):
            if not go_on():
                break
            held = self._held(path, go_on)
            self._note_held(path, held is not None)
            outcome = dataclasses.replace(held, stamp=quiet) if held else intake.take(self.path, path, quiet, go_on)
            self._track(path, quiet, outcome, retried=held is None)
            lot.append((path, outcome))
            if len(lot) >= LOT_FILES or time.monotonic() - began_s > LOT_S:
                yield lot
                lot, began_s = [], time.monotonic()
        if lot:
            yield lot

    def _track(self, path: bytes, quiet: files.Stamp, outcome: Outcome, *, retried: bool) -> None:
        """What is not settled after all settles on, what cannot be read is tried again, the rest is done with."""
        if isinstance(outcome, intake.NotTaken) and outcome.state is FileState.SETTLING:
            self.tracker.observe(path, outcome.stamp or quiet, time.monotonic())
            self.tracker.restart(path, time.monotonic())
        else:
            self.tracker.forget(path)
        if isinstance(outcome, intake.NotTaken) and outcome.state is FileState.BLOCKED and retried:
            self._unread.note(path, quiet, time.monotonic())
        else:
            self._unread.forget(path)

    def _record(self, session: Session, path: bytes, outcome: Outcome) -> None:
        row = files.by_path(session, self.name, path)
        if row is None:  # only its directory's listing makes rows; the next one will
            return
        if isinstance(outcome, intake.NotTaken):
            files.put(session, row.id, outcome.state, outcome.reason, outcome.stamp)
            return
        row.size_bytes = outcome.stamp.size_bytes
        try:
            job_id, new = self._submit(session, row, outcome.sha256)
        except JobMoved:  # a worker ended the old job this instant: settle again, submit again
            files.put(session, row.id, FileState.SETTLING, "Its job was moved meanwhile.")
            return
        files.put(session, row.id, FileState.SUBMITTED, "", outcome.stamp, sha256=outcome.sha256, job_id=job_id)
        if new:
            logger.info("submitted", extra={"job_id": job_id, "path": row.display_path})

    def _submit(self, session: Session, row: SourceFile, sha256: str) -> tuple[int | None, bool]:
        """Record what is to be done with settled content: its job's id, if it gets one, and whether it is new."""
        pin = dict[str, Any](model_version=versions.resolve(session, self._model)) if self._model else {}
        job, new = jobs.submit(session, row, sha256, priority=self.priority, **pin)
        return job.id, new


class CuratedReconciler(Reconciler):
    """Brings the record of the curated folder up to date: its photos are not coloured, but checked and learned from."""

    def _submit(self, session: Session, row: SourceFile, sha256: str) -> tuple[int | None, bool]:
        return None, curated.submit(session, row, sha256)
