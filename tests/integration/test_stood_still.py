"""A worker stood still right before a rename while another did its job, or that for new content: it changes nothing."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from worker_made import Works

from worker import jobs, pipeline, sidecar, strikes
from worker.db import Database, after
from worker.tables import Job


@pytest.fixture
def works(database: Database, tmp_path: Path) -> Works:
    return Works(tmp_path / "works", database)


def _assert_told(works: Works, job_id: int) -> None:
    row = works.row(job_id)
    assert works.files() == ["a__color.png", "a__color.png.json"]
    there = (works.output / "a__color.png").read_bytes()
    told = json.loads((works.output / "a__color.png.json").read_text())
    assert hashlib.sha256(there).hexdigest() == told["derivative"]["sha256"] == row.output_sha256


def test_before_it_writes_its_sidecar(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    job = works.claim(works.scan("a.png"))
    assert job is not None
    write, stood_still = sidecar.write, list[int]()

    def slow(*given: Any, **named: Any) -> bytes:
        if not stood_still:
            stood_still.append(1)
            with works.database.writing() as session:
                session.execute(sa.update(Job).values(lease_until=after(-1)))
            with works.database.writing() as session:
                jobs.expire(session, strikes.in_force(works.bench.settings))
            works.run(job.id)
        return write(*given, **named)

    monkeypatch.setattr(sidecar, "write", slow)
    pipeline._settle(works.bench, job)
    _assert_told(works, job.id)


def test_before_it_replaces_its_older_derivative(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """And new content came meanwhile, and was coloured."""
    job_id = works.scan("a.png")
    works.run(job_id)
    with works.database.writing() as session:
        jobs.do_again(session, session.get_one(Job, job_id))
    job = works.claim(job_id)
    assert job is not None
    rename, new = os.rename, list[int]()

    def slow(*given: Any, **named: Any) -> None:
        if not new:
            new.append(works.scan("a.png", 9))
            works.run(new[0])
        rename(*given, **named)

    monkeypatch.setattr(os, "rename", slow)
    pipeline._settle(works.bench, job)
    _assert_told(works, new[0])
