"""Colouring again with another version: what that would touch, how long it would take, and the jobs for it.

The old derivative stays; the new one gets the version's name into its own. Only scans whose present content has a
published derivative are taken, and none that the version has coloured already.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from worker import jobs
from worker.db import Database
from worker.errors import RootMissing
from worker.queue import PRIORITY
from worker.tables import FileState, Job, JobState, Root, SourceFile, display

PAGE: Final = 200
#: the last so many derivatives say how long one takes
SAMPLE: Final = 500


@dataclasses.dataclass(kw_only=True)
class Plan:
    """What recolouring touches.

    Attributes:
        version: the version to colour with, and the choices for it.
        scans: how many scans.
        size_bytes: of all of them.
        by: derivatives by the version that made the present one.
        folders: scans by root and directory, as people write them.
        each_s: how long one takes, by recorded durations; None while nothing was coloured yet.
    """

    version: str
    scans: int = 0
    size_bytes: int = 0
    by: Counter[str] = dataclasses.field(default_factory=Counter)
    folders: Counter[str] = dataclasses.field(default_factory=Counter)
    each_s: float | None = None

    def duration_s(self, processes: int) -> float | None:
        """About how long all of it takes with so many colouring processes, in seconds."""
        return None if self.each_s is None else self.scans * self.each_s / processes


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How scans are to be coloured again.

    Attributes:
        version: by which version.
        parameters: choices of its own for these jobs (`strength`, …), by the settings' names.
    """

    version: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def variant(self) -> str:
        """What the derivatives' names carry: the version, and the choices where there are any."""
        return self.version + "".join(f"+{name}{value}" for name, value in sorted(self.parameters.items()))


@dataclasses.dataclass(frozen=True)
class Place:
    """A file or a folder below a root."""

    root: str
    path: bytes

    def holds(self) -> sa.ColumnElement[bool]:
        """Is a row of `source_files` here, or below?"""
        here = SourceFile.root == self.root
        if not self.path:
            return here
        below = self.path + b"/"
        inside = sa.and_(SourceFile.path >= below, SourceFile.path < self.path + b"0")  # "0" follows "/"
        return sa.and_(here, sa.or_(SourceFile.path == self.path, inside))


def places(session: Session, paths: Sequence[bytes]) -> list[Place]:
    """Where these paths lie in the record.

    Raises:
        RootMissing: one lies in no watched folder.
    """
    roots = {os.path.realpath(root.path): root.name for root in session.scalars(sa.select(Root))}
    found = []
    for path in paths:
        full = os.path.realpath(path)
        root = next((r for r in roots if full == r or full.startswith(r.rstrip(b"/") + b"/")), None)
        if root is None:
            raise RootMissing(f"{display(path)} lies in no watched folder; `photochrom status` lists them.")
        found.append(Place(roots[root], full[len(root) :].strip(b"/")))
    return found


def plan(database: Database, wanted: Wanted, where: Sequence[Place]) -> Plan:
    """What would be coloured again; nothing is changed."""
    planned = Plan(version=wanted.variant, each_s=_each_s(database))
    for page in _pages(database, wanted, where):
        for file, made_by in page:
            planned.scans += 1
            planned.size_bytes += file.size_bytes
            planned.by[made_by or "unknown"] += 1
            planned.folders[f"{file.root}: {display(file.directory) or '.'}"] += 1
    return planned


def submit(database: Database, wanted: Wanted, where: Sequence[Place]) -> int:
    """Put a job for each into the queue, behind everything else; returns how many are new."""
    count = 0
    for file in (file for page in _pages(database, wanted, where) for file, _ in page):
        with database.writing() as session:  # one at a time: the watcher locks files in another order
            if not _is_still(session, file):
                continue
            _, new = jobs.submit(
                session, file, str(file.sha256), priority=PRIORITY["backlog"], variant=wanted.variant,
                model_version=wanted.version, parameters=dict(wanted.parameters),
            )  # fmt: skip
            count += new
    return count


def _is_still(session: Session, seen: SourceFile) -> bool:
    """Whether a file still has the content that was seen: a job for what it had would wait for it for ever.

    Whoever records new content waits until this transaction ends, and then ends the job.
    """
    same = sa.and_(SourceFile.id == seen.id, SourceFile.sha256 == seen.sha256, SourceFile.job_id == seen.job_id)
    return session.scalar(sa.select(SourceFile.id).where(same).with_for_update()) is not None


def _pages(database: Database, wanted: Wanted, where: Sequence[Place]) -> Iterator[list[tuple[SourceFile, str | None]]]:
    """Files to be coloured again, with the version that coloured them last; page by page, by id."""
    again = aliased(Job)
    exists = sa.exists().where(
        again.source_file_id == SourceFile.id, again.variant == wanted.variant,
        again.source_sha256 == SourceFile.sha256, again.state != JobState.SUPERSEDED,
    )  # fmt: skip
    query = (
        sa.select(SourceFile, Job.model_version)
        .join(Job, Job.id == SourceFile.job_id)
        .where(
            SourceFile.state == FileState.SUBMITTED, Job.state.in_(jobs.PUBLISHED),
            Job.source_sha256 == SourceFile.sha256, ~exists,
        )
        .order_by(SourceFile.id)
        .limit(PAGE)
    )  # fmt: skip
    if not wanted.parameters:
        query = query.where(Job.model_version != wanted.version)
    if where:
        query = query.where(sa.or_(*(place.holds() for place in where)))
    last = 0
    while True:
        with database.reading() as session:
            page = [(file, made_by) for file, made_by in session.execute(query.where(SourceFile.id > last))]
            session.expunge_all()
        if not page:
            return
        last = page[-1][0].id
        yield page


def _each_s(database: Database) -> float | None:
    with database.reading() as session:
        rows = session.execute(
            sa.select(Job.started_at, Job.finished_at)
            .where(Job.state == JobState.DONE, Job.started_at.is_not(None), Job.finished_at.is_not(None))
            .order_by(Job.id.desc())
            .limit(SAMPLE)
        ).all()
    took_s = [(end - start).total_seconds() for start, end in rows if start and end]
    return sum(took_s) / len(took_s) if took_s else None
