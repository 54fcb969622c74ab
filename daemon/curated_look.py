"""`photochrom retrain`: with --now, first one look at the curated folder, which is otherwise the watcher's business.

So that a run in the foreground needs no daemon: what is new there is settled, hashed and recorded here, and checked by
the worker's part of the verb.
"""

import dataclasses
import importlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import click

from daemon import intake, roots
from daemon.reconcile import CuratedReconciler
from worker import files
from worker.db import Database, made
from worker.identity import is_known_again
from worker.mounts import mount_of
from worker.queue import PRIORITY
from worker.settings import CURATED_ROOT, RootSettings, Settings, load
from worker.tables import RootState

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.25
#: beyond the settle time; a file that somebody still writes to is left for the next look
PATIENCE_S: Final = 5.0


def look_once(settings: Settings) -> bool:
    """Record what is new in the curated folder; returns whether there was a folder for us to look at.

    A folder that a running daemon watches is left to it, and so is one that is not there.
    """
    root = settings.curated_root
    if root is None:
        return False
    intake.ignore_lease_signals()
    watcher = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    with made(settings.database) as database:
        try:
            return _look(database, settings, root, watcher)
        finally:
            with database.writing() as session:
                files.release_roots(session, watcher)


def _look(database: Database, settings: Settings, root: RootSettings, watcher: str) -> bool:
    settle_s = roots.settle_time_s(root, mount_of(root.path), settings)
    reconciler = CuratedReconciler(database, root.key, os.fsencode(root.path), settle_s, PRIORITY[root.priority])
    if not _hold(database, root, watcher) or not reconciler.full_scan(lambda: _hold(database, root, watcher)):
        return False
    give_up_s = time.monotonic() + settle_s + PATIENCE_S
    while len(reconciler.tracker) and time.monotonic() < give_up_s:
        time.sleep(LOOK_S)
        reconciler.full_scan(lambda: _hold(database, root, watcher))
    return True


def _hold(database: Database, root: RootSettings, watcher: str) -> bool:
    """Take or renew the right to look; False while a daemon has it, or the folder is away."""
    try:
        identity = roots.identity(root.path)
    except OSError:
        return False
    mount, path, now = mount_of(root.path), os.fsencode(root.path), dataclasses.asdict(identity)
    known_again = is_known_again(database, CURATED_ROOT, path, now, mount.fs_type)
    with database.writing() as session:
        row = files.watch_root(
            session, name=CURATED_ROOT, path=path, output=b"", mode=roots.watch_mode(root, mount),
            fs_type=mount.fs_type, identity=now, watcher=watcher, lease_s=files.ROOT_LEASE_S, known_again=known_again,
        )  # fmt: skip
        return row is not None and row.state is RootState.ONLINE


def _command() -> click.Command:
    # by string, as the verbs are: the daemon's package does not know the worker's commands
    inner: click.Command = importlib.import_module("worker.retrain_commands").retrain
    work: Callable[..., Any] = inner.callback or (lambda **_: None)

    def retrain(**options: Any) -> Any:
        """The worker's verb, after a look where the run is to be here and now."""
        if options["now"] and not options["detach"]:
            look_once(load())
        return work(**options)

    return click.Command(inner.name, params=list(inner.params), callback=retrain, help=inner.help)


retrain = _command()
