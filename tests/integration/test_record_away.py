"""A database that goes away while a job is worked on is no strike against its scan, however long it is away."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from worker_made import Works

from worker import holding, jobs, pipeline, publish, strikes
from worker.db import Database, after
from worker.tables import Job, JobState


class _Gone(Exception):
    sqlstate = "57P01"


def test_it_is_away_when_the_job_ends(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = Works(tmp_path / "works", database)
    job = works.claim(works.scan("a.png"))
    assert job is not None
    writing, commit, away = Database.writing, publish.Publication.commit, [0]

    @contextlib.contextmanager
    def failing(self: Database) -> Iterator[Session]:
        if away[0] > 0:
            away[0] -= 1
            raise sa.exc.OperationalError("", {}, _Gone("terminating connection"))
        with writing(self) as session:
            yield session

    def goes(self: publish.Publication, planned: publish.Planned, **named: set[str]) -> publish.Published:
        published = commit(self, planned, **named)
        with writing(database) as session:  # away for longer than a lease lasts
            session.execute(sa.update(Job).values(lease_until=after(-1)))
        away[0] = 3
        return published

    monkeypatch.setattr(Database, "writing", failing)
    monkeypatch.setattr(publish.Publication, "commit", goes)
    monkeypatch.setattr(holding, "AGAIN_S", 0.01)
    pipeline._settle(works.bench, job)
    with writing(database) as session:
        jobs.expire(session, strikes.in_force(works.bench.settings))
    row = works.row(job.id)
    assert (row.state, row.error_class, row.lost, row.failures) == (JobState.QUEUED, "record_away", 0, 0)
    monkeypatch.setattr(publish.Publication, "commit", commit)
    with writing(database) as session:
        session.get_one(Job, job.id).not_before = None
    assert works.run(job.id).state is JobState.DONE
    assert works.files() == ["a__color.png", "a__color.png.json"]
