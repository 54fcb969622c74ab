"""`photochrom health`: is everything moving, from the folder to the row? A living process proves nothing."""

import dataclasses
import datetime as dt
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import click
import sqlalchemy as sa
from sqlalchemy.orm import Session

from daemon.broker import check_broker
from daemon.questions import as_json
from worker import files, leases, meanings, training_runs
from worker.answers import ask
from worker.database_errors import in_words
from worker.db import Database, after
from worker.errors import ExitCode, PhotochromError
from worker.json_output import print_json
from worker.overview import database_time, unreadable
from worker.record import record
from worker.settings import Settings, load
from worker.tables import Job, JobEvent, JobState, Root, RootState, SourceFile, display
from worker.twins import due

#: a full look may be late by so many intervals, and so long at the least
LATE_SCANS: Final = 3
LATE_S: Final = 120
#: work that is due waits at most so long while no worker claims anything
STUCK_S: Final = 300
#: a void claim is taken back within seconds; one that stays says that nobody sweeps
UNSWEPT_S: Final = 60
#: a transaction of ours takes milliseconds; who holds the database for so long holds up everybody
LOCKED_S: Final = 5.0
LOW_SPACE_BYTES: Final = 64 << 20


@dataclasses.dataclass(frozen=True)
class Sign:
    """One sign of life or of its absence.

    Attributes:
        what: was looked at.
        ok: whether it is as it should be.
        says: one sentence; with the next step when it is not.
        value: the figure behind it, for machines: seconds or bytes.
    """

    what: str
    ok: bool
    says: str
    value: float | None = None


def signs(settings: Settings) -> list[Sign]:
    """Look at everything, end to end; nothing is changed."""
    found = [_broker(settings)]
    try:
        with record(settings) as database, database.reading() as session:
            now = database_time(session)
            found.append(_database(database))
            found += _roots(session, settings, now)
            found += [_unreadable(session, settings), _waiting(session, settings, now), _claims(session)]
    except PhotochromError as error:
        found.append(Sign("database", False, str(error)))
    except sa.exc.DBAPIError as error:
        found.append(Sign("database", False, str(in_words(error))))
    return found + list(_disks(settings))


def _database(database: Database) -> Sign:
    """It answers; but while somebody keeps SQLite's lock, no part can renew a lease or record what it did."""
    if database.engine.dialect.name == "sqlite" and _is_locked(database):
        says = f"can be read, but another process has kept it locked for {LOCKED_S:g} s, so that nothing is recorded"
        return Sign("database", False, f"{says}. Find out which has {database.engine.url.database} open, and end it.")
    return Sign("database", True, "answers, its schema is this version's")


def _is_locked(database: Database) -> bool:
    connection = database.engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={LOCKED_S * 1000:.0f}")
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode == sqlite3.SQLITE_BUSY
    finally:
        connection.invalidate()  # its patience is not what others expect
    return False


def _broker(settings: Settings) -> Sign:
    try:
        check_broker(settings)
    except PhotochromError as error:
        return Sign("broker", False, str(error))
    return Sign("broker", True, "answers")


def _roots(session: Session, settings: Settings, now: dt.datetime) -> Iterator[Sign]:
    """The folders that these settings name; others in the record are another host's, or nobody's any more."""
    known = {root.name: root for root in session.scalars(sa.select(Root).order_by(Root.name))}
    for wanted in settings.all_roots:
        root = known.pop(wanted.key, None)
        if root is not None:
            yield _root(session, root, now, max(LATE_SCANS * settings.scan_interval_s, LATE_S))
        else:
            yield Sign(f"root {wanted.path}", False, "nobody has ever watched it. Start `photochrom up` or `watch`.")
    for root in known.values():
        yield Sign(f"root {display(root.path)}", True, "in the record, but not in these settings; not looked at")


def _root(session: Session, root: Root, now: dt.datetime, late_s: float) -> Sign:
    what = f"root {display(root.path)}"
    if root.state is RootState.OFFLINE:
        return Sign(what, False, f"offline: {root.reason}")
    age_s = max(0.0, (now - root.scanned_at).total_seconds()) if root.scanned_at else None
    if not files.is_watched(root, now):
        return Sign(what, False, "nobody watches it. Start `photochrom up` or `photochrom watch`.", age_s)
    if age_s is None:
        return _first_scan(session, root, now, late_s)
    if root.reason:  # paused
        return Sign(what, False, root.reason, age_s)
    late = age_s > late_s
    advice = "; that is too long ago. Look at the watcher's log." if late else ""
    return Sign(what, not late, f"scanned completely {age_s:.0f} s ago, {root.files} files{advice}", age_s)


def _first_scan(session: Session, root: Root, now: dt.datetime, late_s: float) -> Sign:
    """It takes hours where all of a large archive is hashed in it; but one that goes on records what it comes to."""
    what = f"root {display(root.path)}"
    moved = session.scalar(sa.select(sa.func.max(SourceFile.since)).where(SourceFile.root == root.name))
    idle_s = max(0.0, (now - moved).total_seconds()) if moved else None
    if idle_s is None or idle_s <= late_s:
        return Sign(what, True, "its first scan is under way", idle_s)
    says = f"its first scan has not ended, and for {idle_s:.0f} s nothing was recorded. Look at the watcher's log."
    return Sign(what, False, says, idle_s)


def _unreadable(session: Session, settings: Settings) -> Sign:
    count, first = unreadable(session, limit=1, names=[root.key for root in settings.all_roots])
    if not count:
        return Sign("sources", True, "everything that was found can be read", 0)
    (path, why), more = first[0], f"; {count - 1} more" if count > 1 else ""
    return Sign("sources", False, f"{path}: {why}{more}", count)


def _waiting(session: Session, settings: Settings, now: dt.datetime) -> Sign:
    """Work that is due and that nobody takes is what a dead worker looks like from outside.

    That of a folder that is offline or paused is not due, and the folder's own sign says why.
    """
    if settings.retrain_pauses_colouring and training_runs.under_way(session):
        return Sign("work", True, "colouring waits for the training run that is under way (retrain_pauses_colouring)")
    held = sa.select(Root.name).where(sa.or_(Root.state == RootState.OFFLINE, Root.reason != ""))
    waiting = (Job.state == JobState.QUEUED, due(Job), Job.root.not_in(held))
    # what has been worked on before waits since its pause ended, or since it was given or sent back
    back = sa.select(sa.func.max(JobEvent.at)).where(JobEvent.job_id == Job.id).correlate(Job).scalar_subquery()
    ready = sa.case((Job.claim_no == 0, Job.created_at), else_=sa.func.coalesce(Job.not_before, back))
    oldest = session.scalar(sa.select(sa.func.min(ready)).where(*waiting))
    # the newest event, not the newest of all jobs: read from the end, it is found at once
    claims = sa.select(JobEvent.at).where(JobEvent.state == JobState.RUNNING)
    claimed = session.scalar(claims.order_by(JobEvent.id.desc()).limit(1))
    last = f"last claim {(now - claimed).total_seconds():.0f} s ago" if claimed else "no claim yet"
    if oldest is None:
        return Sign("work", True, f"nothing waits; {last}", 0)
    waits_s = (now - oldest).total_seconds()
    idle_s = (now - max(oldest, claimed)).total_seconds() if claimed else waits_s
    if working := _live_claims(session, settings):
        busy = "1 scan that takes long" if working == 1 else f"{working} scans that take long"
        last += f", workers are busy with {busy}" if idle_s > STUCK_S else ""
    stuck = idle_s > STUCK_S and not working
    advice = ". No worker takes it: start one, or look at its log." if stuck else ""
    return Sign("work", not stuck, f"the oldest due scan waits for {waits_s:.0f} s; {last}{advice}", waits_s)


def _live_claims(session: Session, settings: Settings) -> int:
    """How many jobs have a worker that renews its claim: one that does so for minutes works on a large scan."""
    void = leases.is_void(Job.lease_until, leases.LONGER_ELSEWHERE * settings.lease_s)
    running = sa.select(sa.func.count()).select_from(Job).where(Job.state == JobState.RUNNING)
    return session.scalar(running.where(~void)) or 0


def _claims(session: Session) -> Sign:
    void = session.scalar(
        sa.select(sa.func.count(Job.id)).where(Job.state == JobState.RUNNING, Job.lease_until < after(-UNSWEPT_S))
    )
    running = session.scalar(sa.select(sa.func.count(Job.id)).where(Job.state == JobState.RUNNING))
    if void:
        return Sign("claims", False, f"{void} claims are void and nobody takes them back. Start the watcher.", void)
    return Sign("claims", True, f"{running} scans are being worked on", running)


def _disks(settings: Settings) -> Iterator[Sign]:
    for folder in sorted({settings.state_dir, *(root.output for root in settings.watched)}):
        try:
            free = ask(folder, partial(shutil.disk_usage, folder)).free
            writable = ask(folder, partial(os.access, folder, os.W_OK))
        except OSError as error:
            why = meanings.in_words(error)
            yield Sign(f"disk {folder}", False, f"cannot be looked at ({why}). Mount or create it.")
            continue
        ok = writable and free >= LOW_SPACE_BYTES
        advice = "" if ok else " Free some space." if writable else " It cannot be written: correct its permissions."
        yield Sign(f"disk {folder}", ok, f"{free >> 20} MiB free.{advice}", free)


@click.command()
@as_json
def health(as_json: bool) -> None:
    """Say whether everything moves, end to end: scans, waiting work, claims, broker, database, disks.

    Exits 0 when it does, 13 when something does not: for monitoring, containers and systemd.
    """
    found = signs(load())
    ok = all(sign.ok for sign in found)
    if as_json:
        data: dict[str, Any] = {"healthy": ok, "signs": [dataclasses.asdict(sign) for sign in found]}
        print_json(data)
    else:
        for sign in found:
            click.echo(f"{'ok ' if sign.ok else 'BAD'}  {sign.what}: {sign.says}")
    if not ok:
        sys.exit(ExitCode.UNHEALTHY)
