"""The verbs read a record of any length in pages, or let the database count: no answer holds a whole table."""

import collections
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from rows_made import source_file

from daemon import batch_report
from daemon.cli import main
from worker import db, pages
from worker.db import Database, open_database
from worker.settings import RootSettings
from worker.tables import FileState, Job, JobEvent, JobState, SourceFile

SCANS = 50_000
#: beside a page: counts by state, the watched folders and their like
FEW = 50


class CountingCursor(sqlite3.Cursor):
    """Counts the rows that are fetched of each statement."""

    fetched: ClassVar[collections.Counter[str]] = collections.Counter()
    _sql = ""

    def execute(self, sql: str, *values: Any) -> "CountingCursor":
        self._sql, self.fetched[sql] = sql, 0
        super().execute(sql, *values)
        return self

    def fetchall(self) -> list[Any]:
        return self._counted(super().fetchall())

    def fetchmany(self, *size: Any) -> list[Any]:
        return self._counted(super().fetchmany(*size))

    def fetchone(self) -> Any:
        row = super().fetchone()
        self._counted([] if row is None else [row])
        return row

    def _counted(self, rows: list[Any]) -> list[Any]:
        self.fetched[self._sql] += len(rows)
        return rows


class CountingConnection(sqlite3.Connection):
    def cursor(self, *_: Any) -> CountingCursor:  # type: ignore[override]
        return super().cursor(CountingCursor)


@pytest.fixture(scope="module")
def _many(tmp_path_factory: pytest.TempPathFactory, _migrated_file: Path) -> Path:
    """A record of many scans: a third done, a third quarantined, a third queued; and as many curated photos."""
    file = tmp_path_factory.mktemp("many") / "photochrom.db"
    shutil.copy(_migrated_file, file)
    states = ("done", "quarantined", "queued")
    paths = [(b"box %d/%d.tif" % (number % 100, number)) for number in range(1, SCANS + 1)]
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.executemany(
            "INSERT INTO source_files (id, root, directory, path, display_path, state, reason, since, size_bytes, "
            "mtime_ns, ctime_ns, inode, job_id) VALUES (?, 'r', ?, ?, ?, 'submitted', '', '2026-01-01', 1, 1, 1, 1, ?)",
            [(n, path.split(b"/")[0], path, path.decode(), n) for n, path in enumerate(paths, 1)],
        )
        connection.executemany(
            "INSERT INTO jobs (id, source_file_id, root, path, display_path, source_sha256, size_bytes, variant, "
            "parameters, priority, state, reason, claim_no, failures, lost, created_at, report, output_path, "
            "output_sha256) VALUES (?, ?, 'r', ?, ?, ?, 1, '', '{}', 3, ?, '', 0, 0, 0, '2026-01-01', '{}', ?, ?)",
            [(n, n, path, path.decode(), f"{n:064d}", states[n % 3], path + b".png", f"{n:064d}")
             for n, path in enumerate(paths, 1)],
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO curated_photos (id, source_file_id, root, path, display_path, sha256, size_bytes, state, "
            "reason, judged_by, created_at, slice, licence, origin, \"use\", claim_no, lost) "
            "VALUES (?, ?, '(curated)', ?, ?, ?, 1, 'rejected', 'gray', 'check', '2026-01-01', '', '', '', '', 0, 0)",
            [(n, n, path, path.decode(), f"{n:064d}") for n, path in enumerate(paths, 1)],
        )  # fmt: skip
    connection.close()
    return file


@pytest.fixture
def many(_many: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """It is this installation's, and what is fetched of it is counted."""
    shutil.copy(_many, state_dir / "photochrom.db")
    real = sa.create_engine

    def counting(url: Any, connect_args: dict[str, Any]) -> sa.Engine:
        return real(url, connect_args={**connect_args, "factory": CountingConnection})

    monkeypatch.setattr(db.sa, "create_engine", counting)
    CountingCursor.fetched.clear()
    yield state_dir
    most = max(CountingCursor.fetched.values())
    assert 0 < most <= pages.PAGE, CountingCursor.fetched.most_common(3)


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("call", [["jobs"], ["quarantine", "list"], ["curated", "list"]], ids=" ".join)
def test_lists_come_page_by_page_and_are_whole(many: Path, call: list[str]) -> None:
    wanted = SCANS // 3 + 1 if call[0] == "quarantine" else SCANS
    assert len(_run(*call).stdout.splitlines()) == wanted
    rows = json.loads(_run(*call, "--json").stdout)
    ids = [row["id"] for row in rows]
    assert len(ids) == wanted and ids == sorted(set(ids))


@pytest.mark.parametrize(
    "call",
    [
        ["status"], ["status", "--json"], ["health"], ["why", "/in/box 7/7.tif"],
        ["why", "/out/box 7/7.tif.png"], ["why", "/elsewhere.tif"],
        ["quarantine", "show", "7"], ["retry", "7"], ["curated", "show", "7"], ["curated", "stats"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_answers_are_counted_or_found_by_the_database(many: Path, call: list[str]) -> None:
    with sqlite3.connect(many / "photochrom.db") as connection:
        connection.execute(
            "INSERT INTO roots (name, path, output, mode, fs_type, state, reason, identity, files) "
            "VALUES ('r', CAST('/in' AS BLOB), CAST('/out' AS BLOB), 'scan', '', 'online', '', '{}', 0)"
        )
    connection.close()
    said = _run(*call).stdout
    assert "Unknown" not in said or call == ["why", "/elsewhere.tif"], said
    assert max(CountingCursor.fetched.values()) <= FEW, CountingCursor.fetched.most_common(3)


def test_everything_is_verified_page_by_page(many: Path) -> None:
    assert _run("verify", "--all").exit_code == 0  # its folder is not in this record: there is nothing to read


def _jobs(database: Database, states: list[JobState]) -> None:
    with database.writing() as session:
        for number, state in enumerate(states):
            file = source_file(b"box %d/a.tif" % number, root="r")
            session.add(file)
            session.flush()
            job = Job(source_file_id=file.id, root="r", path=file.path, display_path=file.display_path, size_bytes=1,
                      source_sha256=f"{number:064d}", state=state)  # fmt: skip
            session.add(job)
            session.flush()
            file.job_id, file.state = job.id, FileState.SUBMITTED
            session.add(JobEvent(job_id=job.id, state=state, claim_no=0))


@pytest.mark.parametrize(("count", "page"), [(0, 2), (1, 2), (2, 2), (5, 2), (5, 5), (5, 100)])
def test_pages_of_any_size_make_the_same_json(
    state_database: Database, monkeypatch: pytest.MonkeyPatch, count: int, page: int
) -> None:
    _jobs(state_database, [JobState.QUARANTINED] * count)
    monkeypatch.setattr(pages, "PAGE", page)
    said = _run("quarantine", "list", "--json").stdout
    assert said == json.dumps(json.loads(said), indent=2) + "\n"
    assert [row["path"] for row in json.loads(said)] == [f"box {number}/a.tif" for number in range(count)]


def test_all_are_sent_back_though_each_page_loses_its_rows(
    state_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _jobs(state_database, [JobState.QUARANTINED] * 5 + [JobState.DONE])
    monkeypatch.setattr(pages, "PAGE", 2)
    assert len(_run("quarantine", "retry", "--all").stdout.splitlines()) == 5
    with state_database.reading() as session:
        assert session.scalar(sa.select(sa.func.count(Job.id)).where(Job.state == JobState.QUEUED)) == 5


def test_reports_of_batches_are_made_one_after_the_other_and_not_before_the_end(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher looks every few seconds; a batch of a million scans that is under way must not be read each time."""
    _jobs(database, [JobState.DONE, JobState.QUEUED, JobState.DONE])
    root = RootSettings(path=tmp_path / "in", output=tmp_path / "out", name="r", batch="marker")
    (tmp_path / "out").mkdir()
    loaded: list[int] = []
    real, seen = batch_report.batch_report, []

    def note(job: Job, _: object) -> None:
        loaded.append(job.id)

    def told(*arguments: Any) -> dict[str, Any] | None:
        before = len(loaded)
        try:
            return real(*arguments)
        finally:
            seen.append((arguments[2], len(loaded) - before))

    monkeypatch.setattr(batch_report, "batch_report", told)
    sa.event.listen(Job, "load", note)
    try:
        assert batch_report.Reporter(database, root).report() == [b"box 0", b"box 2"]
    finally:
        sa.event.remove(Job, "load", note)
    assert seen == [(b"box 0", 1), (b"box 2", 1)]
    assert len(loaded) == 2


def test_the_counting_counts(many: Path) -> None:
    opened = open_database(f"sqlite:///{many / 'photochrom.db'}")
    with opened.reading() as session:
        assert len(session.scalars(sa.select(SourceFile.id)).all()) == SCANS
    assert CountingCursor.fetched.most_common(1)[0][1] == SCANS
    CountingCursor.fetched.clear()
    with opened.reading() as session:
        session.scalar(sa.select(SourceFile.id).limit(1))
    opened.dispose()
