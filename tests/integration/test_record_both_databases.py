"""The record on SQLite and on PostgreSQL: races have one winner, and the database's clock decides."""

import datetime as dt
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from worker import files, jobs, outbox
from worker.db import Database, after
from worker.errors import JobMoved, ScanBroken
from worker.files import Stamp
from worker.overview import blocked_files, database_time, overview, quarantined_since
from worker.strikes import Strikes
from worker.tables import JOB_STATUS, FileState, Job, JobEvent, JobState, RootState, SourceFile

RULES = Strikes(failures=3, lost=5, retry_s=30, wait_s=10)
CLAIMERS = 8


def _watch(database: Database, watcher: str = "me", **changes: Any) -> bool:
    given: dict[str, Any] = {
        "name": "r", "path": b"/in\xff", "output": b"/out", "mode": "scan", "fs_type": "ext4",
        "identity": {"source": "/dev/sda1"}, "watcher": watcher, "lease_s": 60,
    }  # fmt: skip
    with database.writing() as session:
        root = files.watch_root(session, **{**given, **changes})
        return root is not None and root.state is RootState.ONLINE


def _job(database: Database, number: int, sha256: str | None = None, **changes: Any) -> int:
    path = b"%d\xff\n.tif" % number
    with database.writing() as session:
        if files.by_path(session, "r", path) is None:
            files.found(session, "r", path, Stamp(1, 2, 3, -4))
            session.flush()
        row = files.by_path(session, "r", path)
        assert row is not None
        job, _ = jobs.submit(session, row, sha256 or f"{number:064d}", priority=3)
        files.put(session, row.id, FileState.SUBMITTED, "", job_id=job.id)
        if changes:
            session.execute(sa.update(Job).where(Job.id == job.id).values(**changes))
        return job.id


def _claim(database: Database, job_id: int, worker: str = "w:1", lease_s: float = 20) -> Job | None:
    with database.writing() as session:
        return jobs.claim(session, job_id, worker=worker, device="CPU", host="h", model_version="v", lease_s=lease_s)


def _at_once(*calls: Callable[[], object]) -> list[object]:
    """What each of these returns or raises when all start together."""
    barrier = threading.Barrier(len(calls))
    results: list[object] = [None] * len(calls)

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = calls[number]()
        except Exception as error:  # noqa: BLE001 - it is the result
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_many_claimers_one_wins(record: Database) -> None:
    for number in range(10):
        job_id = _job(record, number)
        won = _at_once(*(functools.partial(_claim, record, job_id, f"w:{who}") for who in range(CLAIMERS)))
        winners = [job for job in won if isinstance(job, Job)]
        assert len(winners) == 1, won
        assert [job for job in won if job is None] == [None] * (CLAIMERS - 1)
        assert winners[0].claim_no == 1
    with record.reading() as session:
        assert session.scalar(sa.select(sa.func.count(JobEvent.id)).where(JobEvent.state == JobState.RUNNING)) == 10


def test_of_many_processes_each_job_goes_to_one(record: Database, url: str) -> None:
    ids = [_job(record, number) for number in range(30)]
    program = (
        "import sys; from worker import jobs; from worker.db import open_database\n"
        "database = open_database(sys.argv[1]); sys.stdin.read(1)\n"
        "for job_id in sys.argv[3:]:\n"
        "    with database.writing() as session:\n"
        "        job = jobs.claim(session, int(job_id), worker=sys.argv[2], device='CPU', host='h',"
        " model_version='v', lease_s=20)\n"
        "    if job is not None: print(job.id, job.claim_no)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url, f"w:{who}", *map(str, ids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go")
        process.stdin.flush()
    claimed = [line for process in processes for line in process.communicate(timeout=60)[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(claimed) == sorted(f"{job_id} 1" for job_id in ids)


def test_finish_and_expire_at_once_have_one_winner(record: Database) -> None:
    for number in range(10):
        job = _claim(record, _job(record, number))
        assert job is not None

        def finish(job: Job = job) -> str:
            with record.writing() as session:
                jobs.finish(session, job, JobState.DONE, reason="")
            return "finished"

        def expire() -> str:
            with record.writing() as session:
                return "expired" if jobs.expire(session, RULES, worker="w:") else "nothing"

        finished, expired = _at_once(finish, expire)
        with record.reading() as session:
            state = session.get_one(Job, job.id).state
        if state is JobState.DONE:
            assert (finished, expired) == ("finished", "nothing")
        else:
            assert state is JobState.QUEUED
            assert isinstance(finished, JobMoved) and expired == "expired"


def test_a_sweep_lets_go_of_a_job_that_is_renewed_or_ended_meanwhile(
    record: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only PostgreSQL lets another writer in between; the sweep goes on with the others."""
    if record.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    held = [_claim(record, _job(record, number), f"w:{number}", lease_s=-1) for number in range(3)]
    renewed, ended, lost = (job for job in held if job is not None)
    take_back = jobs._take_back

    def late(session: Any, job: Job, *rest: Any) -> Job:
        with record.writing() as other:
            if job.id == renewed.id:
                jobs.renew(other, renewed, 20)
            elif job.id == ended.id:
                jobs.finish(other, ended, JobState.DONE, reason="")
        return take_back(session, job, *rest)

    monkeypatch.setattr(jobs, "_take_back", late)
    with record.writing() as session:
        assert [job.id for job in jobs.expire(session, RULES)] == [lost.id]
    with record.reading() as session:
        states = [session.get_one(Job, job.id).state for job in (renewed, ended, lost)]
    assert states == [JobState.RUNNING, JobState.DONE, JobState.QUEUED]


def test_submitting_the_same_file_at_once_leaves_one_live_job(record: Database) -> None:
    job_id = _job(record, 1, state=JobState.DONE)

    def submit(sha256: str) -> int:
        return _job(record, 1, sha256)

    _at_once(*(lambda sha256=sha256: submit(sha256) for sha256 in ("a" * 64, "b" * 64, "a" * 64, "b" * 64)))
    with record.reading() as session:
        live = session.scalars(sa.select(Job).where(Job.state != JobState.SUPERSEDED)).all()
        assert len(live) == 1
        assert session.get_one(Job, job_id).state is JobState.SUPERSEDED


def test_supersede_and_finish_at_once_end_superseded(record: Database) -> None:
    for number in range(5):
        job = _claim(record, _job(record, number))
        assert job is not None

        def finish(job: Job = job) -> None:
            with record.writing() as session:
                jobs.finish(session, job, JobState.DONE, reason="")

        finished, submitted = _at_once(finish, lambda number=number: _job(record, number, "f" * 64))
        assert isinstance(submitted, int), submitted
        assert finished is None or isinstance(finished, JobMoved)
        with record.reading() as session:
            assert session.get_one(Job, job.id).state is JobState.SUPERSEDED


def test_the_database_s_clock_decides_leases_and_pauses(record: Database) -> None:
    with record.reading() as session:
        now, past, future = session.execute(sa.select(after(0), after(-90), after(0.25))).one()
        assert now.tzinfo == dt.UTC
        assert (now - past).total_seconds() == pytest.approx(90, abs=1)
        assert future > now
        assert session.scalar(sa.select(sa.literal(1)).where(after(0) < after(1), after(0) > after(-0.5))) == 1
        assert abs((database_time(session) - now).total_seconds()) < 30
    void, live = _claim(record, _job(record, 1), lease_s=-0.01), _claim(record, _job(record, 2), lease_s=60)
    assert void is not None and live is not None
    with record.writing() as session:
        assert [job.id for job in jobs.expire(session, RULES)] == [void.id]
    assert _claim(record, _job(record, 3, not_before=after(0.3))) is None
    assert _claim(record, _job(record, 4, not_before=after(-0.01))) is not None


def test_times_written_and_times_computed_compare(record: Database) -> None:
    """SQLite keeps times as text: both ways of writing them must sort as times do."""
    moment = dt.datetime.now(dt.UTC)
    job_id = _job(record, 1, not_before=moment - dt.timedelta(seconds=2))
    with record.reading() as session:
        assert session.scalar(sa.select(Job.id).where(Job.not_before < after(0), Job.not_before > after(-60))) == job_id
        kept = session.get_one(Job, job_id).not_before
    assert kept == moment - dt.timedelta(seconds=2)


def test_a_time_without_a_zone_is_refused(record: Database) -> None:
    with pytest.raises(sa.exc.StatementError, match="without a zone"):
        _job(record, 1, not_before=dt.datetime(2026, 1, 1))  # noqa: DTZ001


def test_odd_names_and_odd_evidence_go_in_and_out(record: Database) -> None:
    job = _claim(record, _job(record, 7))
    assert job is not None and job.path == b"7\xff\n.tif" and job.display_path == r"7\xff\n.tif"
    with record.writing() as session:
        jobs.fail(session, job, ScanBroken("bad\udcff\0name"), RULES, "tail\0")
    with record.reading() as session:
        row = session.execute(sa.select(JOB_STATUS)).mappings().one()
        file = files.by_path(session, "r", b"7\xff\n.tif")
    assert file is not None and file.inode == -4
    assert (row["path"], row["state"], row["error_message"]) == (r"7\xff\n.tif", "quarantined", r"bad\udcff\x00name")
    assert row["created_at"].tzinfo == dt.UTC and row["output_path"] is None


def test_only_published_jobs_show_an_output(record: Database) -> None:
    target = {"output_path": b"a.tif", "display_output_path": "/out/a.tif", "output_sha256": "c" * 64}
    published = {JobState.DONE, JobState.NEEDS_REVIEW, JobState.DUPLICATE}
    for number, state in enumerate(JobState):
        _job(record, number, state=state, **target)
    with record.reading() as session:
        shown = {row["state"]: row["output_path"] for row in session.execute(sa.select(JOB_STATUS)).mappings()}
    assert shown == {state.value: "/out/a.tif" if state in published else None for state in JobState}


def test_the_overview_counts(record: Database) -> None:
    assert _watch(record)
    with record.reading() as session:
        since = database_time(session)
    old = since - dt.timedelta(days=1)
    _job(record, 1)
    assert _claim(record, _job(record, 2)) is not None
    _job(record, 3, state=JobState.DONE, finished_at=after(0), output_path=b"x")
    _job(record, 4, state=JobState.QUARANTINED, finished_at=after(0), reason="Broken.")
    _job(record, 5, state=JobState.QUARANTINED, finished_at=old)
    with record.writing() as session:
        files.found(session, "r", b"new\xff.tif", Stamp(1, 1, 1, 1))
        session.flush()
        row = files.by_path(session, "r", b"new\xff.tif")
        assert row is not None
        files.put(session, row.id, FileState.BLOCKED, "EACCES")
    with record.reading() as session:
        seen = overview(session, since)
        assert blocked_files(session) == [(r"/in\xff/new\xff.tif", "EACCES")]
        assert [(job_id, reason) for job_id, _, reason in quarantined_since(session, since)] == [(4, "Broken.")]
        everything = overview(session)
    assert seen.jobs == {"queued": 1, "running": 1, "done": 1, "quarantined": 2}
    assert seen.files == {"submitted": 5, "blocked": 1}
    assert seen.ended_since == {"done": 1, "quarantined": 1}
    assert everything.ended_since == {"done": 1, "quarantined": 2}
    assert (seen.unscanned, seen.per_minute) == (["r"], 1)
    assert [(path, worker, device) for path, worker, device, _ in seen.working] == [(r"2\xff\n.tif", "w:1", "CPU")]
    assert seen.oldest_waiting is not None and seen.oldest_waiting >= since - dt.timedelta(seconds=1)
    with record.writing() as session:
        files.scanned(session, "r", seconds=0, files=6)
    with record.reading() as session:
        assert overview(session, since).unscanned == []
        assert overview(session, since, names=["r", "other"]).unscanned == ["other"]
        assert overview(session, database_time(session) + dt.timedelta(seconds=1)).unscanned == ["r"]
        assert overview(session).roots[0].path == r"/in\xff"


def test_the_folder_summary_counts_jobs_where_there_are_any(record: Database) -> None:
    _job(record, 1, state=JobState.DONE)
    _job(record, 2)
    with record.writing() as session:
        files.found(session, "r", b"deep/x.tif", Stamp(1, 1, 1, 1))
    with record.reading() as session:
        rows = session.execute(sa.text("SELECT root, directory, state, files FROM folder_summary")).all()
    assert sorted((bytes(row[1]), row[2], row[3]) for row in rows) == [
        (b"", "done", 1), (b"", "queued", 1), (b"deep", "settling", 1),
    ]  # fmt: skip


def test_a_root_has_one_watcher_until_its_lease_ends(record: Database) -> None:
    assert _watch(record, "first")
    assert not _watch(record, "second")
    assert _watch(record, "first"), "renewed"
    with record.writing() as session:
        files.release_roots(session, "first")
    assert _watch(record, "second", lease_s=-1)
    assert _watch(record, "third"), "the second one's lease ran out"


def test_two_watchers_that_start_at_once_do_not_both_get_a_new_root(record: Database) -> None:
    got = _at_once(*(lambda who=who: _watch(record, f"d{who}") for who in range(4)))
    assert got.count(True) == 1, got
    assert sum(_watch(record, f"d{who}") for who in range(4)) == 1


def test_a_root_on_another_mount_is_offline_and_back_online_with_the_first(record: Database) -> None:
    assert _watch(record)
    assert not _watch(record, identity={"source": "overlay"})
    with record.reading() as session:
        seen = overview(session).roots[0]
    assert (seen.state, "Mount it again" in seen.reason) == ("offline", True)
    assert not _watch(record, fs_type="tmpfs")
    assert _watch(record)
    assert _watch(record, path=b"/elsewhere", identity={"source": "new"}), "meant: the settings name another folder"


def test_a_share_that_is_spelt_otherwise_is_the_same(record: Database) -> None:
    assert _watch(record, fs_type="cifs", identity={"source": "//nas/share"})
    assert _watch(record, fs_type="smb3", identity={"source": "//NAS/share/"})
    assert not _watch(record, fs_type="cifs", identity={"source": "//nas/other"})


def test_directories_come_in_pages_each_once(record: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with record.writing() as session:
        for number in range(2500):
            name = b"\xff%d" % number
            session.add(
                SourceFile(
                    root="r",
                    directory=name,
                    path=name + b"/a",
                    display_path="",
                    state=FileState.SETTLING,
                    size_bytes=1,
                    mtime_ns=1,
                    ctime_ns=1,
                    inode=1,
                )
            )
    found: list[bytes] = []
    with record.reading() as session:
        while page := files.directories(session, "r", found[-1] if found else None):
            found += page
    assert len(found) == len(set(found)) == 2500 and found == sorted(found)


def test_two_dispatchers_send_a_message_too_many_at_worst(record: Database) -> None:
    assert _watch(record)
    ids = {_job(record, number) for number in range(20)}

    def dispatch() -> set[int]:
        with record.reading() as session:
            due = [job.id for job in outbox.to_dispatch(session, in_flight=64, broker_empty=True)]
        with record.writing() as session:
            return outbox.mark_dispatched(session, due)

    first, second = _at_once(dispatch, dispatch)
    assert isinstance(first, set) and isinstance(second, set), (first, second)
    assert first | second == ids
    with record.reading() as session:
        assert outbox.to_dispatch(session, in_flight=64, broker_empty=True) == []


def test_writers_wait_for_each_other_and_none_is_turned_away(record: Database) -> None:
    """`database is locked` is what a reader that becomes a writer gets on SQLite; ours begin as writers."""
    ids = [_job(record, number) for number in range(40)]

    def work(mine: list[int]) -> str:
        for job_id in mine:
            job = _claim(record, job_id, f"w:{os.getpid()}")
            assert job is not None
            with record.writing() as session:
                jobs.renew(session, job, 20)
            with record.writing() as session:
                jobs.finish(session, job, JobState.DONE, reason="")
            with record.reading() as session:
                overview(session)
        return "well"

    assert _at_once(*(lambda part=part: work(ids[part::4]) for part in range(4))) == ["well"] * 4
