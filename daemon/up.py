"""`photochrom up`: everything on one machine under one supervisor.

up ─┬─ broker   an embedded valkey-server, unless a URL names another
├─ watch    looks at the folders, submits, dispatches, sweeps leases
├─ worker   colours
├─ beat     the clock of scheduled work
└─ trainer  retrains, where retrain_cron says when
"""

import contextlib
import fcntl
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from daemon import progress
from daemon.broker import EmbeddedBroker, check_broker
from daemon.children import Child, Part
from daemon.roots import check_roots, refuse_unknown_models
from daemon.supervisor import Stops, Supervisor
from worker import files, jobs, overview, strikes
from worker.db import STATE_DIR_MODE, Database, migrate, open_database
from worker.errors import ExitCode, JobMoved, OutputUnwritable, StateDirInUse
from worker.settings import PREFIX, RootSettings, Settings
from worker.tables import Job, JobState

logger = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks at the database …
LOOK_SHARE = 20  # … or, where counting is slow, so many times as long as the last look took
DRAIN_RETRY_S = 1.0  # nobody goes on copying into a folder that is drained: a truncated file is not waited for
PATIENCE = 8  # deaths of one part in a row, a minute in all, until a drain gives up; a service never does
STATE_FILE_MODE = 0o600
WORKER_NAME = "PHOTOCHROM_WORKER"  # hands a worker the name that its claims carry


def up(settings: Settings, *, drain: bool, out: TextIO) -> ExitCode:
    """Runs every part until SIGINT, SIGTERM or SIGHUP, or with `drain` until everything is worked off.

    Args:
        settings: in force here, and handed down to every part.
        drain: end when every folder was scanned and no file is settling and no job queued or running.
        out: where the person reads.

    Returns:
        OK; with `drain` SOME_QUARANTINED or SOME_NOT_TAKEN, or FAILED when it was interrupted or a part keeps dying.
        The exit code of a part that can never start.

    Raises:
        SetupError: a folder, the state directory, the broker or the database cannot be used; nothing was started.
    """
    check_roots(settings)
    console = progress.Console(out)
    with state_directory(settings.state_dir), Stops() as stops, progress.logged_to(console):
        migrate(settings.database)
        with _opened(settings) as database, _broker(settings) as brokers:
            console.say(progress.banner(settings, os.getpid(), drain=drain))
            onlooker = Onlooker(settings, database, console, drain=drain)
            parts = _children(settings.model_copy(update=_drain_settings(settings) if drain else {}), database)
            supervisor = Supervisor(console, settings.state_dir / "logs", started=brokers, to_start=parts)
            try:
                code = supervisor.run(stops, onlooker.look, patience=PATIENCE if drain else None)
            finally:
                supervisor.stop(stops)
            onlooker.sum_up()
    if code is None:  # asked to stop
        return ExitCode.FAILED if drain else ExitCode.OK
    return code


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    database = open_database(settings.database)
    try:
        refuse_unknown_models(settings, database)
        yield database
    finally:
        database.dispose()


@contextlib.contextmanager
def _broker(settings: Settings) -> Iterator[list[Part]]:
    """The embedded broker while it is needed; nothing where a URL names another, which has to answer."""
    if settings.broker_url:
        check_broker(settings)
        yield []
        return
    broker = EmbeddedBroker(settings.state_dir, settings.state_dir / "logs" / "broker.log")
    broker.start()
    try:
        yield [broker]
    finally:
        broker.stop()


class Onlooker:
    """Looks at the database now and then: tells what was found and how far things are, and knows when all is done."""

    def __init__(self, settings: Settings, database: Database, console: progress.Console, *, drain: bool) -> None:
        self._settings = settings
        self._database = database
        self._console = console
        self._drain = drain
        self._names = [root.key for root in settings.all_roots]
        with database.reading() as session:
            self._since = overview.database_time(session)
        self._started_s = self._due_s = time.monotonic()
        self._told_found = False

    def look(self) -> ExitCode | None:
        """An exit code once everything is drained, if that was asked for; else None."""
        started_s = time.monotonic()
        if started_s < self._due_s:
            return None
        try:
            code = self._look(started_s)
        except SQLAlchemyError as error:
            logger.debug("counting failed", exc_info=error)
            self._console.progress("The database does not answer at the moment; waiting for it.", started_s)
            code = None
        took_s = time.monotonic() - started_s
        self._due_s = time.monotonic() + max(LOOK_S, LOOK_SHARE * took_s)
        return code

    def _look(self, now_s: float) -> ExitCode | None:
        with self._database.reading() as session:
            seen = overview.overview(session, self._since, self._names)
        if not self._told_found and progress.is_scanned(seen, now_s - self._started_s):
            self._told_found = True
            self._console.say(progress.found(seen, self._settings))
        self._console.progress(progress.progress_line(seen), now_s)
        if not self._drain or not progress.is_drained(seen, now_s - self._started_s):
            return None
        return progress.drained_exit(seen)

    def sum_up(self) -> None:
        """Tells what became of everything in this run, if the database answers."""
        with contextlib.suppress(SQLAlchemyError), self._database.reading() as session:
            seen = overview.overview(session, self._since, self._names)
            quarantined = overview.quarantined_since(session, self._since)
            blocked = overview.blocked_files(session)
            self._console.say(progress.summary(seen, self._settings, quarantined, blocked))


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with every setting in it, so that a child has exactly ours."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    if "curated" not in settings.model_fields_set:
        del values["curated"]  # who names the folder asks for it; the default one may be missing
    values["roots"] = json.dumps([_root(root) for root in settings.roots])
    handed = {PREFIX + name.upper(): str(value) for name, value in values.items()}
    # Started in a folder that has a `model` or `worker` in it, Python would import that one.
    return {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ | handed | {"PYTHONSAFEPATH": "1"}


@contextlib.contextmanager
def state_directory(path: Path) -> Iterator[None]:
    """Makes the state directory and holds it for this process.

    Raises:
        StateDirInUse: another `photochrom up` holds it.
        OutputUnwritable: it cannot be made or written.
    """
    try:
        path.mkdir(mode=STATE_DIR_MODE, parents=True, exist_ok=True)
        (path / "logs").mkdir(exist_ok=True)
        descriptor = os.open(path / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, STATE_FILE_MODE)
    except OSError as error:
        raise OutputUnwritable(
            f"The state directory {path} cannot be written ({error.strerror}). Choose another with --state-dir."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
        os.close(descriptor)
        raise StateDirInUse(
            f"Another `photochrom up` (process {holder}) works with {path}. Stop it with `kill {holder}`, or choose "
            "another state directory with --state-dir."
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    try:
        yield
    finally:
        os.close(descriptor)


def _root(root: RootSettings) -> dict[str, str | float | None]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in root.model_dump().items()}


def _drain_settings(settings: Settings) -> dict[str, float]:
    return {"retry_s": min(settings.retry_s, DRAIN_RETRY_S)}


def _children(settings: Settings, database: Database) -> list[Child]:
    """The parts that are our own verbs; the worker's name is new at every start, so that its leases are its alone."""
    handed = environment(settings)
    logs = settings.state_dir / "logs"

    def child(verb: str, **more: Any) -> Child:
        command = [sys.executable, "-m", "daemon.cli", verb]
        return Child(verb, command, log=logs / f"{verb}.log", environ=handed, **more)

    give_back = _GiveBack(settings, database)
    watch, worker = (child(verb, boot_variable=WORKER_NAME, on_end=give_back) for verb in ("watch", "worker"))
    parts = [watch, worker, child("beat")]
    return parts + ([child("trainer")] if settings.retrain_cron else [])


class _GiveBack:
    """Gives back the jobs or the folders that an ended part still held; if that fails, its leases run out in time."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._strikes = strikes.in_force(settings)
        self._database = database

    def __call__(self, boot: str, asked: bool) -> None:
        """A death is a strike against the job, which may have been its cause; being stopped by us is none."""
        try:
            with self._database.writing() as session:
                files.release_roots(session, boot)
                if not asked:
                    jobs.expire(session, self._strikes, worker=boot)
                    return
                held = sa.select(Job).where(Job.state == JobState.RUNNING, Job.worker.startswith(boot, autoescape=True))
                for job in session.scalars(held).all():
                    jobs.release(session, job, "Photochrom was stopped while it worked on this scan.")
        except (SQLAlchemyError, JobMoved) as error:
            logger.warning("What an ended part held is taken back when its leases run out: %s", error)
