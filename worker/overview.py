"""Questions to the record, for people and for the supervisor: counts, ages, what could not be taken."""

import dataclasses
import datetime as dt
import json
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker import curated, files, training_runs, versions
from worker.db import after
from worker.jobs import OPEN
from worker.tables import FileState, Job, JobState, Root, SourceFile, absolute, display

#: how the watcher's sentence begins about what the system does not let it read
UNREADABLE: Final = "It cannot be "
ENDED = tuple(state for state in JobState if state not in OPEN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootStatus:
    """One watched folder, as a person wants to see it."""

    name: str
    path: str
    output: str
    mode: str
    state: str
    reason: str
    files: int
    scanned_at: dt.datetime | None
    mode_reason: str = ""  # why it is only scanned, though its file system has events
    watched: bool = True  # whether a daemon has the right to watch it; what is told of it may be old otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overview:
    """Counts over the whole record.

    Attributes:
        jobs: jobs per state.
        files: files per state.
        ended_since: jobs per end state that entered it since the given time (of all time without one).
        unscanned: watched roots that have not been scanned completely since the given time.
        roots: the watched folders.
        oldest_waiting: when the oldest queued job was submitted.
        per_minute: derivatives published in the last minute.
        working: what is being worked on: (path, worker, device, since when).
        curated: curated photos per state.
        training: the retraining run under way, or the newest.
        broken_versions: (version, why) of versions that a worker could not load.
    """

    jobs: dict[str, int]
    files: dict[str, int]
    ended_since: dict[str, int]
    unscanned: list[str]
    roots: list[RootStatus]
    oldest_waiting: dt.datetime | None
    per_minute: int
    working: list[tuple[str, str, str, dt.datetime]]
    curated: dict[str, int] = dataclasses.field(default_factory=dict)
    training: training_runs.TrainingStatus | None = None
    broken_versions: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def database_time(session: Session) -> dt.datetime:
    """The database's clock."""
    return session.execute(sa.select(after(0))).scalar_one()


def overview(session: Session, since: dt.datetime | None = None, names: Sequence[str] | None = None) -> Overview:
    """Count everything once.

    Args:
        session: a reading session.
        since: what `ended_since` and `unscanned` count from.
        names: the roots now watched; None for all that the record knows.
    """
    roots, now = session.scalars(sa.select(Root).order_by(Root.name)).all(), database_time(session)
    scanned = {root.name: root.scan_started_at for root in roots}
    wanted = names if names is not None else [root.name for root in roots]
    unscanned = [name for name in wanted if (at := scanned.get(name)) is None or (since is not None and at < since)]
    ended = sa.select(Job.state, sa.func.count()).where(Job.state.in_(ENDED)).group_by(Job.state)
    if since is not None:
        ended = ended.where(Job.finished_at >= since)
    return Overview(
        jobs=_counts(session, sa.select(Job.state, sa.func.count()).group_by(Job.state)),
        files=_counts(session, sa.select(SourceFile.state, sa.func.count()).group_by(SourceFile.state)),
        ended_since=_counts(session, ended),
        unscanned=unscanned,
        curated=curated.counts(session),
        training=training_runs.latest(session),
        broken_versions=versions.problems(session),
        roots=[_root_status(root, now) for root in roots],
        oldest_waiting=session.scalar(
            sa.select(Job.created_at).where(Job.state == JobState.QUEUED).order_by(Job.id).limit(1)
        ),
        per_minute=session.scalar(
            sa.select(sa.func.count(Job.id)).where(
                Job.state.in_(ENDED), Job.finished_at >= after(-60), Job.output_path.is_not(None)
            )
        )
        or 0,
        working=[
            (job.display_path, job.worker or "", job.device or "", job.started_at or job.created_at)
            for job in session.scalars(sa.select(Job).where(Job.state == JobState.RUNNING).order_by(Job.id).limit(20))
        ],
    )


def _counts(session: Session, query: sa.Executable) -> dict[str, int]:
    return {str(state): count for state, count in session.execute(query)}


def _root_status(root: Root, now: dt.datetime) -> RootStatus:
    return RootStatus(
        name=root.name,
        path=display(root.path),
        output=display(root.output),
        mode=root.mode,
        mode_reason=json.loads(root.identity).get("no_events", ""),
        state=root.state,
        reason=root.reason,
        files=root.files,
        scanned_at=root.scanned_at,
        watched=files.is_watched(root, now),
    )


def blocked_files(session: Session, limit: int = 20) -> list[tuple[str, str]]:
    """(path, reason) of files that could not be taken."""
    return _blocked(session, limit, SourceFile.state == FileState.BLOCKED)


def _blocked(session: Session, limit: int, *where: sa.ColumnElement[bool]) -> list[tuple[str, str]]:
    rows = session.execute(
        sa.select(Root.path, SourceFile.path, SourceFile.reason)
        .join(Root, Root.name == SourceFile.root)
        .where(*where)
        .order_by(SourceFile.id)
        .limit(limit)
    )
    return [(display(absolute(root, path)), reason) for root, path, reason in rows]


def unreadable(
    session: Session, limit: int = 3, names: Sequence[str] | None = None
) -> tuple[int, list[tuple[str, str]]]:
    """How many files and folders cannot be looked at, opened or read, and (path, reason) of the first.

    What waits for the rest of its batch is blocked too, and is well.

    Args:
        session: a reading session.
        limit: how many to name.
        names: of the roots to look at; None for all.
    """
    where = [SourceFile.state == FileState.BLOCKED, SourceFile.reason.startswith(UNREADABLE)]
    where += [SourceFile.root.in_(names)] if names is not None else []
    count = session.scalar(sa.select(sa.func.count(SourceFile.id)).where(*where)) or 0
    return count, _blocked(session, limit, *where)


def quarantined_since(session: Session, since: dt.datetime, limit: int = 20) -> list[tuple[int, str, str]]:
    """(job id, path, reason) of jobs that were quarantined since then."""
    rows = session.execute(
        sa.select(Job.id, Root.path, Job.path, Job.reason)
        .join(Root, Root.name == Job.root)
        .where(Job.state == JobState.QUARANTINED, Job.finished_at >= since)
        .order_by(Job.id)
        .limit(limit)
    )
    return [(job_id, display(absolute(root, path)), reason) for job_id, root, path, reason in rows]
