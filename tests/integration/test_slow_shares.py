"""What a look at the folder asks of the record: a page at a time, and nothing is held while the share answers."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rows_made import source_file

from daemon import scan
from daemon.reconcile import Reconciler
from worker import files, outbox
from worker.db import Database
from worker.tables import FileState, Job, JobState, SourceFile


@pytest.fixture
def reconciler(database: Database, tmp_path: Path) -> Reconciler:
    """A watched folder that is empty, and five folders of it in the record."""
    root = tmp_path / "share"
    root.mkdir()
    with database.writing() as session:
        files.watch_root(session, name="r", path=bytes(root), output=b"/out", mode="scan", fs_type="nfs", identity={},
                         watcher="me", lease_s=60)  # fmt: skip
        for number in range(5):
            file = source_file(b"box %d/a.tif" % number, root="r")
            file.state = FileState.SUBMITTED
            session.add(file)
    return Reconciler(database, "r", bytes(root), 1.0, priority=3)


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAGE", 2)
    monkeypatch.setattr(outbox, "PAGE", 2)


@pytest.mark.usefixtures("pages_of_two")
def test_no_transaction_is_open_while_the_share_says_what_is_gone(
    reconciler: Reconciler, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, open_then = scan.is_gone, []
    pool: Any = database.engine.pool

    def slow(root: bytes, directory: bytes) -> bool:
        open_then.append(pool.checkedout())
        return real(root, directory)

    monkeypatch.setattr(scan, "is_gone", slow)
    assert reconciler.full_scan(lambda: True)
    assert open_then == [0] * 5
    with database.reading() as session:
        assert set(session.scalars(sa.select(SourceFile.state))) == {FileState.VANISHED}


def test_what_is_gone_with_its_root_has_not_vanished(reconciler: Reconciler, database: Database) -> None:
    answers = iter([True, False])  # after the listing of the root; after the look for its folders
    reconciler.full_scan(lambda: next(answers, False))
    with database.reading() as session:
        assert set(session.scalars(sa.select(SourceFile.state))) == {FileState.SUBMITTED}


@pytest.mark.usefixtures("pages_of_two")
def test_only_files_that_can_be_opened_come_back(reconciler: Reconciler, database: Database, tmp_path: Path) -> None:
    """Through a link they could not; each look would send their jobs back for nothing."""
    root = tmp_path / "share"
    with database.writing() as session:
        for file in session.scalars(sa.select(SourceFile)).all():
            job = Job(source_file_id=file.id, root="r", path=file.path, display_path=file.display_path, size_bytes=1,
                      source_sha256="a" * 64, state=JobState.SKIPPED, error_class="vanished")  # fmt: skip
            session.add(job)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.tif").touch()
    (root / "box 0").symlink_to(tmp_path / "elsewhere")
    (root / "box 1").mkdir()
    (root / "box 1" / "a.tif").symlink_to(tmp_path / "elsewhere" / "a.tif")
    for back in (b"box 3", b"box 4"):
        (root / back.decode()).mkdir()
        (root / back.decode() / "a.tif").touch()
    reconciler._retry_what_came_back()
    with database.reading() as session:
        queued = session.scalars(sa.select(Job.path).where(Job.state == JobState.QUEUED).order_by(Job.id)).all()
    assert queued == [b"box 3/a.tif", b"box 4/a.tif"]
