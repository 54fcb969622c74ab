"""Two scans at work at once that want one name, or have the same bytes: each has its own, and the net runs once."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from rows_made import source_file, watched
from worker_made import Works

from worker import jobs, pipeline, publish
from worker.db import Database, after
from worker.tables import Job, JobState


def test_two_scans_at_work_that_want_one_name(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other records its intent while this one's file is brought to the disk."""
    works = Works(tmp_path / "works", database, output_format="jpeg")
    ids = [works.scan("a.png", 1), works.scan("a.tif", 2)]
    first, other = (works.claim(job_id) for job_id in ids)
    assert first is not None and other is not None
    others = [other]
    plan = publish.Publication.plan

    def slow(publication: publish.Publication, *given: object, **named: object) -> publish.Planned:
        planned = plan(publication, *given, **named)  # type: ignore[arg-type]
        if others:
            pipeline._settle(works.bench, others.pop())
        return planned

    monkeypatch.setattr(publish.Publication, "plan", slow)
    pipeline._settle(works.bench, first)
    rows = [works.row(job_id) for job_id in ids]
    assert [row.state for row in rows] == [JobState.DONE, JobState.DONE], rows[0].reason
    assert rows[1].output_path == b"a__color.jpg" and rows[0].output_path != rows[1].output_path
    assert len(works.files()) == 4 and works.net.asked == 2


def test_twins_that_are_claimed_at_once(record: Database) -> None:
    """The elder, which had to wait, becomes due while the younger's claim is not committed yet."""
    with record.writing() as session:
        session.merge(watched())
        ids = []
        for path in (b"0", b"0.png"):
            file = source_file(path)
            session.add(file)
            session.flush()
            ids.append(jobs.submit(session, file, "a" * 64, priority=3)[0].id)
        session.execute(sa.update(Job).where(Job.id == ids[0]).values(not_before=after(0.5)))
    claimed: list[Job | None] = []

    def claim(job_id: int, go_on: threading.Event) -> None:
        with record.writing() as session:
            claimed.append(jobs.claim(session, job_id, worker="w", device="", host="h", model_version="v", lease_s=9))
            go_on.wait(2)

    now, later = threading.Event(), threading.Event()
    now.set()
    younger = threading.Thread(target=claim, args=(ids[1], later))
    younger.start()
    while not claimed:
        later.wait(0.01)
    threading.Event().wait(0.7)
    elder = threading.Thread(target=claim, args=(ids[0], now))
    elder.start()
    elder.join(1)
    later.set()
    for thread in (younger, elder):
        thread.join(60)
    assert [job is not None for job in claimed] == [True, False]
