"""The watcher: hints from watchdog, the reconciling scan that is the truth, and beside them the dispatcher.

An event only means "look at this directory soon"; a lost event costs one scan interval and nothing else. Each root is
looked at, and held, in threads of its own: a long look, or a share that does not answer, delays no other root.
"""

import dataclasses
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from daemon import intake, roots
from daemon.batch_report import Reporter
from daemon.batches import Gate
from daemon.dispatch import Dispatcher
from daemon.events import Hints
from daemon.reconcile import CuratedReconciler, Reconciler
from worker import files, leases
from worker.answers import NoAnswer, ask
from worker.db import Database, SchemaGuard, open_database, refuse_unmigrated
from worker.errors import SetupError
from worker.identity import is_known_again
from worker.meanings import in_words
from worker.mounts import Mount, mount_of
from worker.queue import PRIORITY
from worker.settings import CURATED_ROOT, RootSettings, Settings
from worker.tables import Root, RootState, display

logger = logging.getLogger(__name__)

TICK_S: Final = 0.25
DISPATCH_S: Final = 0.5
SPACE_S: Final = 2.0
SCHEMA_S: Final = 5.0
REPORT_S: Final = 5.0
#: from a look that failed (database away, folder unreadable) to a full scan
AFTER_TROUBLE_S: Final = 5.0
#: an end waits so long for what is in hand: less than from SIGTERM to SIGKILL, whatever does not answer
STOP_S: Final = 6.0
CLOSE_S: Final = 1.0

Step = tuple[Callable[[], object], float]  # and every how many seconds


@dataclasses.dataclass
class Watched:
    """One root under watch."""

    settings: RootSettings
    mode: str
    hints: Hints
    reconciler: Reconciler
    gate: Gate | None = None
    reporter: Reporter | None = None
    online: bool = False
    identity: roots.RootIdentity | None = None  # of what the hints listen to
    next_scan_s: float = 0.0


def watch(settings: Settings) -> None:
    """Watch all roots until SIGTERM or Ctrl-C.

    Raises:
        SetupError: no root is there, or an output or the database cannot be worked with, or no longer.
    """
    roots.check_roots(settings)
    database = open_database(settings.database)
    refuse_unmigrated(database)
    roots.refuse_unknown_models(settings, database)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    intake.ignore_lease_signals()
    watcher = Watcher(database, settings)
    watcher.run(stop)
    if watcher.refusal is not None:
        raise watcher.refusal


class Watcher:
    """Looks at every root and holds it, and keeps messages going.

    Attributes:
        refusal: why it ended by itself: another release has migrated the database.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings
        boot = os.environ.get("PHOTOCHROM_WORKER") or socket.gethostname()  # `up` gives back what a dead one held
        self.name = f"{boot}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.refusal: SetupError | None = None
        self._schema = SchemaGuard(database)
        self.dispatcher = Dispatcher(database, settings)
        self.watched = [self._watched(root) for root in settings.all_roots]
        self.dispatcher.unseen.update(root.key for root in settings.all_roots)

    def _watched(self, root: RootSettings) -> Watched:
        mount = roots.mount_in_time(root.path)
        settle_s = roots.settle_time_s(root, mount, self.settings)
        kind = CuratedReconciler if root.key == CURATED_ROOT else Reconciler
        gate = Gate(root, settle_s) if root.batch else None
        held = {"held": gate.held} if gate else {}
        reconciler = kind(
            self.database, root.key, os.fsencode(root.path), settle_s, PRIORITY[root.priority], model=root.model,
            refuse=partial(leases.refuse_another, name=root.key, watcher=self.name), **held,
        )  # fmt: skip
        reporter = Reporter(self.database, root) if root.batch else None
        return Watched(root, roots.watch_mode(root, mount), Hints(root.path), reconciler, gate, reporter)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`; goes on through every failure of database and broker, and ends also while a share is hung."""
        loops = [self._common_steps(stop), *(steps for root in self.watched for steps in self._steps_of(root, stop))]
        threads = [threading.Thread(target=_repeat, args=(steps, stop), daemon=True) for steps in loops]
        for thread in threads:
            thread.start()
        while not stop.wait(TICK_S):
            pass
        deadline_s = time.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        self.close()

    def _common_steps(self, stop: threading.Event) -> list[Step]:
        return [
            (lambda: self._refuse_another_schema(stop), SCHEMA_S),
            (self.dispatcher.make_room, SPACE_S),
            (self.dispatcher.dispatch, DISPATCH_S),
            (self.dispatcher.dispatch_curated, DISPATCH_S),
            (self.dispatcher.sweep, self.settings.sweep_s),
        ]

    def _steps_of(self, root: Watched, stop: threading.Event) -> list[list[Step]]:
        """What waits for this root's disks, and each not for the other."""
        loops: list[list[Step]] = [
            [(partial(self._hold, root), files.ROOT_LEASE_S / 4)],
            [(partial(self._look, root, stop), TICK_S)],
        ]
        return loops + ([[(root.reporter.report, REPORT_S)]] if root.reporter else [])

    def close(self) -> None:
        """Let another daemon take over at once."""
        for root in self.watched:
            _survive(partial(ask, root.settings.path, root.hints.stop, CLOSE_S))
            if root.reporter:
                _survive(partial(ask, root.settings.output, root.reporter.report, CLOSE_S))
        _survive(self._release)
        self.database.dispose()

    def _release(self) -> None:
        with self.database.writing() as session:
            files.release_roots(session, self.name)

    def _refuse_another_schema(self, stop: threading.Event) -> None:
        try:
            self._schema.refuse_another()
        except SetupError as error:
            self.refusal = error
            stop.set()

    def hold(self) -> None:
        """Take or renew the right to watch each root, and see whether it is there and still the same."""
        for root in self.watched:
            self._hold(root)

    def _hold(self, root: Watched) -> None:
        held = self._held(root)
        self.dispatcher.unseen.discard(root.settings.key)
        if root.online and (held != root.identity or root.hints.outdated.is_set()):
            root.online = False
            root.hints.stop()  # gone, remounted or replaced: watches on what is gone are deaf for ever
        root.identity = held
        if held and not root.online:
            root.hints.gap.set()  # whatever happened while it was away
            if root.mode == "events":  # which must not cost us the right to watch
                starting = threading.Thread(target=root.hints.start, name="hints", daemon=True)
                starting.start()
                starting.join(files.ROOT_LEASE_S / 4)
        if root.hints.none_left:  # at the start or since; what is listened to still hints
            root.mode = "scan"
        root.online = held is not None

    def _held(self, root: Watched) -> roots.RootIdentity | None:
        """Its identity, if it is there and ours to watch; what is recorded says why not."""
        try:
            return self._identified(root)
        except NoAnswer as error:
            why = f"The folder does not answer (for {error.for_s:.0f} s): its server, its disk or the network is down."
            self._missing(root, f"{why} It goes on by itself when it answers.")
        except OSError as error:
            self._missing(root, f"The folder is not there ({in_words(error)}). Mount it or create it again.")
        return None

    def _identified(self, root: Watched) -> roots.RootIdentity | None:
        """See and record it.

        Raises:
            OSError: it is not there, or does not answer for as long as the right to watch it lasts.
        """
        name, folder, lease_s = root.settings.key, root.settings.path, files.ROOT_LEASE_S
        identity, mount = ask(folder, lambda: (roots.identity(folder), mount_of(folder)), lease_s)
        if not root.online and (fault := roots.unfit(root.settings, self.settings)):
            self._missing(root, display(os.fsencode(str(fault))))
            return None
        if not root.online or root.identity != identity:  # remounted, or a share came or went below it
            self._fit(root, mount)
        path, now = os.fsencode(folder), {**dataclasses.asdict(identity), "no_events": root.hints.none_left}
        known_again = ask(folder, lambda: is_known_again(self.database, name, path, now, mount.fs_type), lease_s)
        with self.database.writing() as session:
            row = files.watch_root(
                session, name=name, path=path, output=_output(root.settings), mode=root.mode, fs_type=mount.fs_type,
                identity=now, watcher=self.name, lease_s=lease_s,
                trouble=self.dispatcher.paused.get(name, ""), known_again=known_again,
            )  # fmt: skip
            return identity if row is not None and row.state is RootState.ONLINE else None

    def _missing(self, root: Watched, reason: str) -> None:
        it = root.settings
        row = Root(name=it.key, path=os.fsencode(it.path), output=_output(it), mode=root.mode, reason=reason)
        with self.database.writing() as session:
            files.root_missing(session, row, watcher=self.name, lease_s=files.ROOT_LEASE_S)

    def _fit(self, root: Watched, mount: Mount) -> None:
        """A root that appears, or is mounted over or below, may lie on other file systems than before."""
        root.mode = roots.watch_mode(root.settings, mount)
        root.reconciler.tracker.settle_s = roots.settle_time_s(root.settings, mount, self.settings)
        if root.gate:
            root.gate.settle_s = root.reconciler.tracker.settle_s

    def _is_there(self, root: Watched) -> bool:
        """Whether we look at the folder that `hold` accepted; an unmount is seen here first, and proves nothing."""
        accepted = root.identity
        if not root.online or accepted is None:
            return False
        try:
            status = root.settings.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (accepted.device, accepted.inode)

    def _look(self, root: Watched, stop: threading.Event) -> None:
        """Follow hints, scan when it is time, take what has settled."""
        if not self._is_there(root):
            return
        hinted, regular_s = root.hints.take(), root.next_scan_s
        scan = time.monotonic() >= regular_s or root.hints.gap.is_set()
        if scan:  # a gap that opens from here on is seen at the next look
            root.hints.gap.clear()

        def go_on() -> bool:
            return self._is_there(root) and not stop.is_set()

        root.next_scan_s = time.monotonic() + AFTER_TROUBLE_S  # stands if what follows fails, and hints with it
        if not scan:
            for directory, deep in hinted:
                root.reconciler.look_at(directory, deep=deep, go_on=go_on)
        elif root.reconciler.full_scan(go_on):
            regular_s = time.monotonic() + self.settings.scan_interval_s
        else:
            regular_s = root.next_scan_s
        if self._is_there(root):
            root.reconciler.take_settled(go_on)
        else:  # whatever was not looked at is looked at when it is back
            root.hints.gap.set()
        root.next_scan_s = regular_s


def _output(root: RootSettings) -> bytes:
    return b"" if root.key == CURATED_ROOT else os.fsencode(root.output)


def _repeat(steps: Sequence[Step], stop: threading.Event) -> None:
    due_s = [0.0] * len(steps)
    while not stop.wait(TICK_S):
        for number, (step, every_s) in enumerate(steps):
            if time.monotonic() >= due_s[number]:
                _survive(step)
                due_s[number] = time.monotonic() + every_s


def _survive(step: Callable[[], object]) -> None:
    """Run one step of a loop that must not end; the next round tries again."""
    try:
        step()
    except SQLAlchemyError as error:
        logger.warning("database_unavailable", extra={"why": str(error.__cause__ or error)})
    except NoAnswer as error:
        logger.warning("no_answer", extra={"why": str(error)})
    except leases.WatchedByAnother as error:
        logger.warning("watched_by_another", extra={"why": str(error)})
    except Exception:
        logger.exception("step_failed")
