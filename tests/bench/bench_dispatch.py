"""What one look for jobs to send costs, in records of two lengths; the ratio says how it grows.

    python tests/bench/bench_dispatch.py [--jobs 4000]

One record is of identical bytes, half of them copied already; one has a backlog of a folder that is offline, beside one
stale message of it; one a backlog of another folder than the one that is asked about.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker import outbox
from worker.db import Database, after, migrate, open_database
from worker.tables import FileState, Job, JobState, Root, RootState, SourceFile


def _record(folder: Path, jobs: int, **of_jobs: Callable[[int], Any]) -> Database:
    """A record of the folders `there` and `away`, with so many jobs; `of_jobs` gives each job's columns."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'photochrom.db'}"
    migrate(url)
    database = open_database(url)
    with database.writing() as session:
        for name, state in (("there", RootState.ONLINE), ("away", RootState.OFFLINE)):
            session.add(Root(name=name, path=name.encode(), output=b"", mode="scan", fs_type="", state=state,
                             identity="{}"))  # fmt: skip
        paths = [{"path": b"%d.tif" % number, "display_path": f"{number}.tif"} for number in range(jobs)]
        file = {"root": "there", "directory": b"", "state": FileState.SUBMITTED, "size_bytes": 1, "mtime_ns": 1,
                "ctime_ns": 1, "inode": 1}  # fmt: skip
        session.execute(sa.insert(SourceFile), [{**file, **path} for path in paths])
        plain: dict[str, Callable[[int], Any]] = {"root": lambda _: "there", "source_sha256": lambda n: f"{n:064d}"}
        session.execute(
            sa.insert(Job),
            [
                {"source_file_id": number + 1, "size_bytes": 1, **paths[number]}
                | {column: value(number) for column, value in (plain | of_jobs).items()}
                for number in range(jobs)
            ],
        )
    return database


def _same_bytes(folder: Path, jobs: int) -> Database:
    return _record(
        folder, jobs,
        source_sha256=lambda _: "a" * 64,
        state=lambda n: JobState.DUPLICATE if n < jobs // 2 else JobState.QUEUED,
    )  # fmt: skip


def _offline_backlog(folder: Path, jobs: int) -> Database:
    return _record(folder, jobs, root=lambda _: "away")


def _stale_message(folder: Path, jobs: int) -> Database:
    database = _record(
        folder, jobs,
        root=lambda n: "there" if n else "away",
        state=lambda n: JobState.DONE if n else JobState.QUEUED,
    )  # fmt: skip
    with database.writing() as session:
        session.execute(sa.update(Job).values(dispatched_at=after(-60), started_at=after(-50)))
        session.execute(sa.update(Job).where(Job.root == "away").values(dispatched_at=after(-3600)))
    return database


def _next(session: Session) -> object:
    return outbox.to_dispatch(session, in_flight=64, broker_empty=False)


def _wanted(session: Session) -> object:
    return outbox.bytes_wanted(session, "away", ahead=4)


CASES: dict[str, tuple[Callable[[Path, int], Database], Callable[[Session], object]]] = {
    "identical bytes": (_same_bytes, _next),
    "backlog of an offline folder": (_offline_backlog, _next),
    "stale message of an offline folder": (_stale_message, _next),
    "bytes wanted by an idle folder": (_same_bytes, _wanted),
}


def _fastest_ms(database: Database, ask: Callable[[Session], object]) -> float:
    """The fastest of five: what the machine does besides only adds."""
    took = []
    for _ in range(5):
        with database.reading() as session:
            started = time.perf_counter()
            ask(session)
            took.append(1000 * (time.perf_counter() - started))
    return min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=4000)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (made, ask)) in enumerate(CASES.items()):
            took = []
            for count in (jobs, 4 * jobs):
                database = made(Path(folder) / f"{number} {count}", count)
                took.append(_fastest_ms(database, ask))
                database.dispose()
            few, many = took
            print(f"{name}: {few:.1f} ms for {jobs} jobs, {many:.1f} ms for {4 * jobs}: x{many / few:.1f}")


if __name__ == "__main__":
    main()
