"""Colouring again with another version: what is taken, what is left alone, and a real job bound to its version."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from rows_made import source_file
from versions_made import make_version, ship

from daemon.cli import main
from model.store import Store
from worker import jobs, pipeline, recolor
from worker.db import Database, SchemaGuard
from worker.errors import RootMissing
from worker.queue import PRIORITY
from worker.serving import Serving
from worker.settings import load
from worker.tables import FileState, Job, JobState, Root, RootState, SourceFile


def add_root(database: Database, base: Path) -> None:
    with database.writing() as session:
        session.add(Root(name="archive", path=bytes(base / "in"), output=bytes(base / "out"), mode="scan", fs_type="",
                         state=RootState.ONLINE, reason="", identity="{}", files=0))  # fmt: skip


def coloured(database: Database, path: bytes, version: str | None = "old", state: JobState = JobState.DONE) -> None:
    """A file whose own derivative is there."""
    sha = path.hex().ljust(64, "0")
    with database.writing() as session:
        file = source_file(path, sha256=sha, reason="")
        session.add(file)
        session.flush()
        job, _ = jobs.submit(session, file, sha, priority=3)
        file.job_id, file.state = job.id, FileState.SUBMITTED
        if state is not JobState.QUEUED:
            claimed = jobs.claim(
                session, job.id, worker="w", device="cpu", host="h", model_version=str(version), lease_s=9
            )
            assert claimed is not None
            jobs.finish(session, claimed, state, reason="")


@pytest.fixture
def archive(record: Database, tmp_path: Path) -> Database:
    (tmp_path / "in" / "1911").mkdir(parents=True)
    add_root(record, tmp_path)
    for path in (b"a.tif", b"1911/b.tif", b"1911/c.tif", b"19110.tif"):
        coloured(record, path)
    coloured(record, b"new.tif", version="new")
    coloured(record, b"broken.tif", state=JobState.QUARANTINED)
    coloured(record, b"waiting.tif", state=JobState.QUEUED)
    return record


def test_a_plan_counts_what_another_version_made(archive: Database, tmp_path: Path) -> None:
    planned = recolor.plan(archive, recolor.Wanted("new"), [])
    assert (planned.scans, planned.by, planned.size_bytes) == (4, {"old": 4}, 40)
    assert planned.folders == {"archive: .": 2, "archive: 1911": 2}
    assert planned.each_s is not None and planned.each_s >= 0
    with archive.reading() as session:
        folder, file = recolor.places(session, [bytes(tmp_path / "in" / "1911"), bytes(tmp_path / "in" / "a.tif")])
        with pytest.raises(RootMissing, match="no watched folder"):
            recolor.places(session, [b"/nowhere/x.tif"])
    assert recolor.plan(archive, recolor.Wanted("new"), [folder]).scans == 2
    assert recolor.plan(archive, recolor.Wanted("new"), [folder, file]).scans == 3


def test_jobs_are_bound_wait_behind_everything_and_are_made_once(archive: Database) -> None:
    assert recolor.submit(archive, recolor.Wanted("new"), []) == 4
    assert recolor.submit(archive, recolor.Wanted("new"), []) == 0
    assert recolor.plan(archive, recolor.Wanted("new"), []).scans == 0
    with archive.reading() as session:
        made = session.scalars(sa.select(Job).where(Job.variant == "new")).all()
        assert {(job.model_version, job.priority, job.state) for job in made} == {
            ("new", PRIORITY["backlog"], "queued")
        }
        # the folder's own job stays what `why` speaks of
        assert not {job.id for job in made} & set(session.scalars(sa.select(SourceFile.job_id)))
    with archive.writing() as session:  # whatever the champion of that worker is
        claimed = jobs.claim(session, made[0].id, worker="w", device="cpu", host="h", model_version="other", lease_s=9)
        assert claimed is not None and claimed.model_version == "new"


def test_a_rerun_of_new_content_ends_no_other_one_of_it(archive: Database) -> None:
    """Of the old content there is one by the same version."""
    only = [recolor.Place("archive", b"a.tif")]
    recolor.submit(archive, recolor.Wanted("new"), only)
    finish_all(archive)
    give_new_content(archive, b"a.tif")
    finish_all(archive)
    assert recolor.submit(archive, recolor.Wanted("third"), only) == 1
    assert recolor.submit(archive, recolor.Wanted("new"), only) == 1
    with archive.reading() as session:
        open_ones = sa.select(Job.variant).where(Job.state == JobState.QUEUED, Job.path == b"a.tif")
        assert set(session.scalars(open_ones)) == {"third", "new"}


def test_no_rerun_of_content_that_was_replaced_this_moment(archive: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for ever for what the file held when it was looked at."""
    pages = recolor._pages

    def slow(*given: object) -> object:
        for page in pages(*given):  # type: ignore[arg-type]
            give_new_content(archive, b"a.tif")
            yield page

    monkeypatch.setattr(recolor, "_pages", slow)
    assert recolor.submit(archive, recolor.Wanted("new"), [recolor.Place("archive", b"a.tif")]) == 0


def give_new_content(database: Database, path: bytes) -> None:
    """As the watcher records it."""
    with database.writing() as session:
        file = session.scalars(sa.select(SourceFile).where(SourceFile.path == path)).one()
        file.sha256 = "c" * 64
        file.job_id = jobs.submit(session, file, "c" * 64, priority=3)[0].id


def finish_all(database: Database) -> None:
    with database.writing() as session:
        for job in session.scalars(sa.select(Job).where(Job.state == JobState.QUEUED)).all():
            claimed = jobs.claim(session, job.id, worker="w", device="", host="h", model_version="old", lease_s=9)
            if claimed is not None:
                jobs.finish(session, claimed, JobState.DONE, reason="")


def test_new_content_ends_open_reruns_of_the_old(archive: Database) -> None:
    recolor.submit(archive, recolor.Wanted("new"), [])
    with archive.writing() as session:
        file = session.scalars(sa.select(SourceFile).where(SourceFile.path == b"a.tif")).one()
        jobs.submit(session, file, "f" * 64, priority=3)
    with archive.reading() as session:
        states = dict(session.execute(sa.select(Job.display_path, Job.state).where(Job.variant == "new")).all())
    assert states == {"a.tif": "superseded", "1911/b.tif": "queued", "1911/c.tif": "queued", "19110.tif": "queued"}


def test_a_rerun_is_published_beside_the_old_derivative(
    state_database: Database, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(monkeypatch, tmp_path / "shipped", seed=1)
    make_version(state_dir / "models", "v2", seed=2, tint=0.5)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    add_root(state_database, tmp_path)
    scan = tmp_path / "in" / "a.png"
    picture = np.tile(np.arange(0, 250, 2, np.uint8), (100, 1))
    picture[30:60, 40:90] //= 2  # an edge: without one it shows nothing and gets no colour
    assert cv2.imwrite(str(scan), picture)
    serving = Serving(Store(load().models), state_database)
    bench = pipeline.Bench(load(), state_database, serving, "tester", SchemaGuard(state_database))
    monkeypatch.setattr(pipeline, "prepare", lambda: bench)
    with state_database.writing() as session:
        sha = hashlib.sha256(scan.read_bytes()).hexdigest()
        file = source_file(b"a.png", sha256=sha, reason="")
        session.add(file)
        session.flush()
        job, _ = jobs.submit(session, file, sha, priority=3)
        file.job_id, file.state = job.id, FileState.SUBMITTED
    pipeline.run(job.id)
    asked = CliRunner().invoke(main, ["recolor", "--model", "v2", "--dry-run", "--json"])
    assert asked.exit_code == 0, asked.output + str(asked.exception)
    dry = json.loads(asked.stdout)
    assert (dry["scans"], dry["submitted"], dry["by"]) == (1, 0, {"shipped-one": 1})
    done = CliRunner().invoke(main, ["recolor", "--model", "v2", str(scan)])
    assert "1 jobs wait" in done.stdout, done.output
    with state_database.reading() as session:
        again = session.scalars(sa.select(Job).where(Job.variant == "v2")).one()
    pipeline.run(again.id)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a__color.png", "a__color@v2.png"]
    with state_database.reading() as session:
        rows = session.execute(sa.select(Job.model_version, Job.pixels_sha256).order_by(Job.id)).all()
    assert [version for version, _ in rows] == ["shipped-one", "v2"]
    assert rows[0][1] != rows[1][1]
