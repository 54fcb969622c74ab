"""A scan that changes before its turn: its new content is taken, and one that is left alone since is not waited for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from daemon.reconcile import Reconciler
from worker import files, pipeline
from worker.db import Database, SchemaGuard
from worker.settings import Settings
from worker.tables import FileState, Job, JobState, SourceFile

PICTURE = b"\x89PNG\r\n\x1a\n the first"
ANOTHER = b"\x89PNG\r\n\x1a\n the second"


class Folder:
    """A watched folder in which everything settles at once, and a worker that gets as far as the sha256."""

    def __init__(self, database: Database, path: Path) -> None:
        path.mkdir()
        self.database, self.path = database, path
        with database.writing() as session:
            files.watch_root(
                session, name="r", path=bytes(path), output=bytes(path.with_name("out")), mode="scan", fs_type="ext4",
                identity={}, watcher="me", lease_s=60,
            )  # fmt: skip
        self.reconciler = Reconciler(database, "r", bytes(path), settle_s=0, priority=3)

    def put(self, name: str, content: bytes) -> None:
        """As a copy program does, and the watcher looks."""
        (self.path / "copied").write_bytes(content)
        (self.path / "copied").rename(self.path / name)
        self.look()

    def look(self) -> None:
        assert self.reconciler.full_scan(lambda: True)
        self.reconciler.take_settled()

    def file(self) -> SourceFile:
        with self.database.reading() as session:
            return session.scalars(sa.select(SourceFile)).one()

    def jobs(self) -> list[Job]:
        """Oldest first."""
        with self.database.reading() as session:
            return list(session.scalars(sa.select(Job).order_by(Job.id)))


@pytest.fixture
def folder(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    champion = SimpleNamespace(device="CPU", version=SimpleNamespace(name="v1"))
    serving: Any = SimpleNamespace(champion=lambda: champion)
    bench = pipeline.Bench(Settings(), database, serving, "w:1", SchemaGuard(database))
    monkeypatch.setattr(pipeline, "prepare", lambda: bench)
    return Folder(database, tmp_path / "in")


def test_one_that_the_watcher_has_not_seen_yet_is_waited_for(folder: Folder) -> None:
    folder.put("plate", PICTURE)
    (folder.path / "plate").write_bytes(ANOTHER)
    pipeline.run(1)
    (job,) = folder.jobs()
    assert (job.state, job.error_class, job.failures) == (JobState.QUEUED, "changed", 0)


@pytest.mark.parametrize("again", [PICTURE, ANOTHER])
def test_one_that_is_no_picture_any_more_ends_its_job_until_it_is_one_again(folder: Folder, again: bytes) -> None:
    folder.put("plate", PICTURE)
    folder.put("plate", b"words")
    pipeline.run(1)
    (job,) = folder.jobs()
    assert (job.state, job.error_class, job.failures) == (JobState.SKIPPED, "ignored", 0)
    assert job.reason.endswith("left alone now. It is no picture: neither its name nor its first bytes say so.")
    folder.look()
    assert [job.state for job in folder.jobs()] == [JobState.SKIPPED]
    folder.put("plate", again)
    *old, live = folder.jobs()
    assert [job.state for job in old] == ([] if again == PICTURE else [JobState.SUPERSEDED])
    assert live.state is JobState.QUEUED
    file = folder.file()
    assert (file.state, file.job_id, file.sha256) == (FileState.SUBMITTED, live.id, live.source_sha256)


def test_one_that_a_pattern_leaves_alone_ends_its_job_until_it_does_not(folder: Folder) -> None:
    folder.put("a.png", PICTURE)
    (folder.path / ".photochromignore").write_text("a.*\n")
    folder.put("a.png", ANOTHER)
    pipeline.run(1)
    (job,) = folder.jobs()
    assert job.state is JobState.SKIPPED and job.reason.endswith("It is left alone by the pattern a.*.")
    (folder.path / ".photochromignore").unlink()
    folder.look()
    assert [job.state for job in folder.jobs()] == [JobState.SUPERSEDED, JobState.QUEUED]


def test_one_whose_bytes_changed_while_nothing_else_tells_is_taken_anew(folder: Folder) -> None:
    """A disk that forgets, or a share that keeps times: no scan sees a difference."""
    folder.put("plate", PICTURE)
    (folder.path / "plate").write_bytes(ANOTHER)
    with folder.database.writing() as session:
        files.put(session, folder.file().id, FileState.SUBMITTED, "", files.Stamp.of((folder.path / "plate").stat()))
    folder.look()
    assert len(folder.jobs()) == 1
    pipeline.run(1)
    folder.look()
    assert [job.state for job in folder.jobs()] == [JobState.SUPERSEDED, JobState.QUEUED]
