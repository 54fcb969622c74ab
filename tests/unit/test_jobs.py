"""The job record: every move that is allowed moves, every other raises, and an old claim can do nothing."""

import dataclasses
import datetime as dt
import itertools
from typing import Any

import pytest
import sqlalchemy as sa
from rows_made import watched
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from worker import jobs, outbox, strikes, twins
from worker.db import Database, after
from worker.errors import (
    JobMoved,
    OutputBlocked,
    OutputFull,
    PhotochromError,
    ScanBroken,
    ScanTruncated,
    ScanUnsupported,
    ScanVanished,
    SetupError,
)
from worker.jobs import ENTER_FROM, OPEN, PUBLISHED, RETRYABLE
from worker.settings import Settings
from worker.strikes import Strikes
from worker.tables import FileState, Job, JobEvent, JobState, Root, RootState, SourceFile, display

RULES = Strikes(failures=3, lost=5, retry_s=30, wait_s=10)
ALL = list(JobState)
A, B = "a" * 64, "b" * 64


def _file(session: Session, path: bytes = b"a.tif", root: str = "archive") -> SourceFile:
    file = SourceFile(
        root=root, directory=b"", path=path, display_path=display(path), state=FileState.SUBMITTED,
        size_bytes=10, mtime_ns=1, ctime_ns=1, inode=1,
    )  # fmt: skip
    session.add(file)
    session.flush()
    return file


def _submit(database: Database, path: bytes = b"a.tif", sha256: str = A, **changes: Any) -> int:
    """A job in the given condition, beside the moves."""
    with database.writing() as session:
        file = session.scalars(sa.select(SourceFile).where(SourceFile.path == path)).one_or_none()
        job, _ = jobs.submit(session, file or _file(session, path), sha256, priority=3)
        if changes:
            session.execute(sa.update(Job).where(Job.id == job.id).values(**changes))
        return job.id


def _claim(database: Database, job_id: int, worker: str = "w:1", lease_s: float = 20) -> Job | None:
    with database.writing() as session:
        return jobs.claim(
            session, job_id, worker=worker, device="CPU", host="h", model_version="v1", lease_s=lease_s
        )  # fmt: skip


def _claimed(database: Database, **changes: Any) -> Job:
    job = _claim(database, _submit(database, **changes))
    assert job is not None
    return job


def _get(database: Database, job_id: int) -> Job:
    with database.reading() as session:
        return session.get_one(Job, job_id)


def _now(database: Database) -> dt.datetime:
    with database.reading() as session:
        return session.execute(sa.select(after(0))).scalar_one()


def _events(database: Database, job_id: int) -> list[tuple[str, int, str | None]]:
    with database.reading() as session:
        rows = session.scalars(sa.select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id))
        return [(event.state.value, event.claim_no, event.worker) for event in rows]


def _pause_s(database: Database, job: Job) -> float:
    assert job.not_before is not None
    return (job.not_before - _now(database)).total_seconds()


# --- the state machine -----------------------------------------------------------------------------------------------


def test_every_state_says_what_it_may_be_entered_from() -> None:
    assert set(ENTER_FROM) == set(JobState)
    assert PUBLISHED | OPEN | RETRYABLE | {JobState.SUPERSEDED} == set(JobState)
    assert ENTER_FROM[JobState.RUNNING] == {JobState.QUEUED}
    assert not any(JobState.SUPERSEDED in sources for sources in ENTER_FROM.values()), "superseded is the end"


@pytest.mark.parametrize(("source", "to"), list(itertools.product(ALL, ALL)))
def test_a_move_is_allowed_or_raises_and_changes_nothing(database: Database, source: JobState, to: JobState) -> None:
    job_id = _submit(database, state=source, reason="before")
    events = _events(database, job_id)
    if source in ENTER_FROM[to]:
        with database.writing() as session:
            moved = jobs._move(session, job_id, to, note="after", reason="after")
            assert moved.state is to
        assert _get(database, job_id).state is to
        assert len(_events(database, job_id)) == len(events) + 1
        assert _events(database, job_id)[-1][0] == to.value
        return
    with pytest.raises(JobMoved, match=f"Job {job_id} cannot enter {to.value}"), database.writing() as session:
        jobs._move(session, job_id, to, reason="after")
    kept = _get(database, job_id)
    assert (kept.state, kept.reason) == (source, "before")
    assert _events(database, job_id) == events


def test_a_job_that_does_not_exist_cannot_be_moved(database: Database) -> None:
    with pytest.raises(JobMoved), database.writing() as session:
        jobs._move(session, 4711, JobState.RUNNING)


def test_a_state_that_is_none_is_refused_by_the_database(database: Database) -> None:
    job_id = _submit(database)
    with pytest.raises(IntegrityError), database.writing() as session:
        session.execute(sa.text("UPDATE jobs SET state = 'lost' WHERE id = :id"), {"id": job_id})


# --- submit ----------------------------------------------------------------------------------------------------------


def test_the_same_content_again_is_a_no_op(database: Database) -> None:
    with database.writing() as session:
        file = _file(session)
        first, new = jobs.submit(session, file, A, priority=3)
        again, new_again = jobs.submit(session, file, A, priority=3)
    assert (new, new_again, again.id) == (True, False, first.id)
    assert _events(database, first.id) == [("queued", 0, None)]


@pytest.mark.parametrize("state", [state for state in ALL if state is not JobState.SUPERSEDED])
def test_new_content_supersedes_whatever_state_the_old_job_is_in(database: Database, state: JobState) -> None:
    old_id = _submit(database, state=state)
    new_id = _submit(database, sha256=B)
    assert new_id != old_id
    assert _get(database, old_id).state is JobState.SUPERSEDED
    new = _get(database, new_id)
    assert (new.state, new.source_sha256, new.claim_no, new.failures, new.lost) == (JobState.QUEUED, B, 0, 0, 0)


def test_content_that_comes_back_is_done_again(database: Database) -> None:
    """A, B, A: B's derivative stands in the output now, so that the old job's is no answer."""
    ids = [_submit(database, sha256=sha256) for sha256 in (A, B, A)]
    assert len(set(ids)) == 3
    states = [_get(database, job_id).state for job_id in ids]
    assert states == [JobState.SUPERSEDED, JobState.SUPERSEDED, JobState.QUEUED]


def test_a_running_job_that_is_superseded_can_not_finish(database: Database) -> None:
    job = _claimed(database)
    _submit(database, sha256=B)
    for act in (
        lambda session: jobs.renew(session, job, 20),
        lambda session: jobs.finish(session, job, JobState.DONE, reason=""),
        lambda session: jobs.fail(session, job, ScanTruncated("short"), RULES),
        lambda session: jobs.release(session, job, "stopping"),
    ):
        with pytest.raises(JobMoved), database.writing() as session:
            act(session)
    assert _get(database, job.id).state is JobState.SUPERSEDED


def test_a_file_that_had_vanished_is_taken_again(database: Database) -> None:
    job = _claimed(database)
    with database.writing() as session:
        jobs.fail(session, job, ScanVanished("gone"), RULES)
    assert _get(database, job.id).state is JobState.SKIPPED
    assert _submit(database) == job.id
    assert _get(database, job.id).state is JobState.QUEUED


def test_a_file_skipped_for_its_kind_stays_skipped(database: Database) -> None:
    job = _claimed(database)
    with database.writing() as session:
        jobs.fail(session, job, ScanUnsupported("a film"), RULES)
    assert _submit(database) == job.id
    assert _get(database, job.id).state is JobState.SKIPPED


def test_the_database_itself_holds_one_live_job_per_file(database: Database) -> None:
    with database.writing() as session:
        file = _file(session)
        jobs.submit(session, file, A, priority=3)
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(
            Job(source_file_id=file.id, root="archive", path=b"a.tif", display_path="a.tif", source_sha256=B,
                size_bytes=1)
        )  # fmt: skip


def test_a_variant_lives_beside_the_folder_s_own_job(database: Database) -> None:
    with database.writing() as session:
        file = _file(session)
        own, _ = jobs.submit(session, file, A, priority=3)
        rerun, new = jobs.submit(session, file, A, priority=0, variant="v2", model_version="v2", parameters={"x": 1})
    assert new and rerun.id != own.id
    claimed = _claim(database, rerun.id)
    assert claimed is not None and claimed.model_version == "v2", "pinned: the worker's version does not decide"


# --- claims and fencing ----------------------------------------------------------------------------------------------


def test_a_claim_takes_lease_number_and_strike(database: Database) -> None:
    job = _claimed(database)
    assert (job.state, job.claim_no, job.lost, job.worker, job.device, job.host, job.model_version) == (
        JobState.RUNNING, 1, 1, "w:1", "CPU", "h", "v1",
    )  # fmt: skip
    assert job.lease_until is not None and job.started_at is not None
    assert 18 < (job.lease_until - _now(database)).total_seconds() <= 20
    assert _events(database, job.id)[-1] == ("running", 1, "w:1")


def test_a_job_is_claimed_once(database: Database) -> None:
    job = _claimed(database)
    assert _claim(database, job.id, "w:2") is None
    assert _get(database, job.id).worker == "w:1"


@pytest.mark.parametrize("state", [state for state in ALL if state is not JobState.QUEUED])
def test_only_queued_jobs_are_claimed(database: Database, state: JobState) -> None:
    assert _claim(database, _submit(database, state=state)) is None


def test_a_job_is_not_claimed_before_its_time(database: Database) -> None:
    later = _submit(database, not_before=after(60))
    assert _claim(database, later) is None
    past = _submit(database, path=b"b.tif", sha256=B, not_before=after(-1))
    claimed = _claim(database, past)
    assert claimed is not None and claimed.not_before is None


def test_a_job_of_an_offline_root_is_not_claimed_though_its_message_is_out(database: Database) -> None:
    job_id = _submit(database)
    with database.writing() as session:
        session.add(Root(name="archive", path=b"/a", output=b"/o", mode="scan", fs_type="nfs", identity="{}", files=0,
                         state=RootState.OFFLINE))  # fmt: skip
    assert _claim(database, job_id) is None
    with database.writing() as session:
        session.get_one(Root, "archive").state = RootState.ONLINE
    assert _claim(database, job_id) is not None


def test_claim_numbers_only_rise(database: Database) -> None:
    job_id = _submit(database)
    seen = []
    for round_ in range(4):
        job = _claim(database, job_id, f"w:{round_}")
        assert job is not None
        seen.append(job.claim_no)
        with database.writing() as session:
            if round_ == 1:
                jobs.expire(session, RULES, worker="w:1")
            elif round_ == 2:
                jobs.fail(session, job, ScanBroken("no picture"), RULES)
                jobs.retry(session, job_id)
            else:
                jobs.release(session, job, "stopping")
    assert seen == [1, 2, 3, 4]


def test_an_old_claim_can_neither_renew_nor_finish_nor_fail_nor_release(database: Database) -> None:
    job_id = _submit(database)
    zombie = _claim(database, job_id, "zombie")
    assert zombie is not None
    with database.writing() as session:
        jobs.expire(session, RULES, worker="zombie")
    heir = _claim(database, job_id, "heir")
    assert heir is not None and heir.claim_no == zombie.claim_no + 1
    before = _get(database, job_id)
    for act in (
        lambda session: jobs.renew(session, zombie, 20, output_path=b"zombie.tif"),
        lambda session: jobs.finish(session, zombie, JobState.DONE, reason="", output_sha256=B),
        lambda session: jobs.fail(session, zombie, ScanBroken("zombie"), RULES),
        lambda session: jobs.fail(session, zombie, ScanTruncated("zombie"), RULES),
        lambda session: jobs.fail(session, zombie, OutputFull("zombie"), RULES),
        lambda session: jobs.release(session, zombie, "zombie"),
    ):
        with pytest.raises(JobMoved), database.writing() as session:
            act(session)
    kept = _get(database, job_id)
    assert (kept.state, kept.worker, kept.claim_no, kept.lease_until, kept.output_path, kept.failures, kept.lost) == (
        JobState.RUNNING, "heir", 2, before.lease_until, None, 0, 2,
    )  # fmt: skip
    with database.writing() as session:
        jobs.finish(session, heir, JobState.DONE, reason="Coloured.", output_sha256=A)
    assert _get(database, job_id).output_sha256 == A


def test_a_renewed_lease_reaches_further_and_notes_the_intent(database: Database) -> None:
    job = _claimed(database)
    with database.writing() as session:
        jobs.renew(session, job, 500, output_path=b"a.tif", output_sha256=B)
    kept = _get(database, job.id)
    assert kept.lease_until is not None and (kept.lease_until - _now(database)).total_seconds() > 400
    assert (kept.output_path, kept.output_sha256, kept.state) == (b"a.tif", B, JobState.RUNNING)


def test_a_finished_job_gives_its_strike_and_its_lease_back(database: Database) -> None:
    job = _claimed(database, error_class="truncated", error_message="x", traceback_tail="x")
    with database.writing() as session:
        jobs.finish(session, job, JobState.DONE, reason="Coloured.", output_sha256=B)
    kept = _get(database, job.id)
    assert (kept.state, kept.lost, kept.lease_until, kept.error_class, kept.error_message, kept.traceback_tail) == (
        JobState.DONE, 0, None, None, None, None,
    )  # fmt: skip
    assert kept.finished_at is not None and kept.reason == "Coloured."
    assert _events(database, job.id)[-1] == ("done", 1, "w:1")


def test_finishing_twice_is_refused(database: Database) -> None:
    job = _claimed(database)
    with database.writing() as session:
        jobs.finish(session, job, JobState.DONE, reason="")
    with pytest.raises(JobMoved), database.writing() as session:
        jobs.finish(session, job, JobState.DONE, reason="")


# --- twins -----------------------------------------------------------------------------------------------------------


def test_a_younger_twin_waits_for_the_elder(database: Database) -> None:
    elder, younger = _submit(database), _submit(database, path=b"b.tif")
    assert _claim(database, younger) is None
    job = _claim(database, elder)
    assert job is not None
    assert _claim(database, younger) is None
    with database.writing() as session:
        jobs.finish(session, job, JobState.DONE, reason="", report={"parameters": {"kind": "tiff"}})
    younger_job = _claim(database, younger)
    assert younger_job is not None
    with database.reading() as session:
        twin = twins.twin_result(session, younger_job, {"kind": "tiff"})
    assert twin is not None and twin.id == elder


def test_an_elder_that_waits_or_failed_holds_nobody_up(database: Database) -> None:
    _submit(database, not_before=after(60))
    assert _claim(database, _submit(database, path=b"b.tif")) is not None
    _submit(database, path=b"c.tif", sha256=B, state=JobState.QUARANTINED)
    assert _claim(database, _submit(database, path=b"d.tif", sha256=B)) is not None


@pytest.mark.parametrize("held", [{"state": RootState.OFFLINE}, {"reason": "Paused: its disk is full."}])
def test_an_elder_whose_folder_is_away_or_full_holds_nobody_up(database: Database, held: dict[str, Any]) -> None:
    """That may take weeks. Once back, the elder waits while the younger is at work: the net runs once."""
    elder, younger = _submit(database), _submit(database, path=b"b.tif", root="elsewhere")
    with database.writing() as session:
        session.add(watched("archive"))
        session.add(watched("elsewhere"))
        session.execute(sa.update(Root).where(Root.name == "archive").values(**held))
    with database.reading() as session:
        assert twins.elder_of(session, session.get_one(Job, younger)) is None
    job = _claim(database, younger)
    assert job is not None
    with database.writing() as session:
        session.execute(sa.update(Root).values(state=RootState.ONLINE, reason=""))
    assert _claim(database, elder) is None
    with database.reading() as session:
        found = twins.elder_of(session, session.get_one(Job, elder))
        assert found is not None and found.id == younger
    with database.writing() as session:
        jobs.finish(session, job, JobState.DONE, reason="")
    assert _claim(database, elder) is not None


def test_a_twin_s_result_has_the_same_model_and_parameters(database: Database) -> None:
    choices = {"strength": 1.0}
    done = {"state": JobState.DONE, "model_version": "v1", "report": {"parameters": choices}}
    _submit(database, path=b"other-folder.tif", **{**done, "report": {"parameters": {"strength": 0.0}}})
    _submit(database, path=b"other-model.tif", **{**done, "model_version": "v0"})
    _submit(database, path=b"other-parameters.tif", **done, parameters={"seed": 1})
    _submit(database, path=b"copy.tif", **{**done, "state": JobState.DUPLICATE})
    job = _claim(database, _submit(database, path=b"mine.tif"))
    assert job is not None
    with database.reading() as session:
        assert twins.twin_result(session, job, choices) is None
    twin_id = _submit(database, path=b"twin.tif", **done)
    with database.reading() as session:
        twin = twins.twin_result(session, job, choices)
    assert twin is not None and twin.id == twin_id


def test_what_a_job_may_replace_and_under_which_name(database: Database) -> None:
    mine = {"state": JobState.DONE, "output_path": b"a~1.png"}
    _submit(database, **mine, output_sha256="0" * 64)
    _submit(database, sha256=B, **mine, output_sha256="1" * 64, report={"there": "2" * 64})
    _submit(database, path=b"other.tif", state=JobState.DONE, output_path=b"a.png", output_sha256="4" * 64)
    third = _submit(database, sha256="c" * 64, output_sha256="3" * 64)
    with database.writing() as session:
        session.add(Root(name="archive", path=b"/in", output=b"/out", mode="scan", fs_type="",
                         state=RootState.ONLINE, reason="", identity="{}", files=0))  # fmt: skip
        session.flush()
        job = session.get_one(Job, third)
        assert twins.replaceable(session, job) == {digit * 64 for digit in "0123"}
        assert twins.names_for(session, job, [b"b.png", b"a~1.png"]) == [b"a~1.png", b"b.png"]
        assert twins.names_for(session, job, [b"a.png", b"c~1.png"]) == [b"c~1.png"]


# --- strikes ---------------------------------------------------------------------------------------------------------


def test_three_errors_quarantine_with_doubling_pauses_between(database: Database) -> None:
    job_id = _submit(database)
    pauses = []
    for strike in (1, 2, 3):
        with database.writing() as session:  # the pause is over
            session.execute(sa.update(Job).values(not_before=None))
        job = _claim(database, job_id)
        assert job is not None
        with database.writing() as session:
            settled = jobs.fail(session, job, ScanTruncated("It ends early."), RULES, traceback="x" * 9000)
        assert (settled.failures, settled.lost) == (strike, 0)
        if strike < 3:
            assert (settled.state, settled.dispatched_at, settled.lease_until) == (JobState.QUEUED, None, None)
            pauses.append(_pause_s(database, settled))
    assert pauses == [pytest.approx(30, abs=2), pytest.approx(60, abs=2)]
    kept = _get(database, job_id)
    assert kept.state is JobState.QUARANTINED
    assert (kept.error_class, kept.error_message, kept.host, kept.claim_no) == ("truncated", "It ends early.", "h", 3)
    assert kept.traceback_tail is not None and len(kept.traceback_tail) == strikes.TRACEBACK_TAIL_CHARS
    assert kept.finished_at is not None and kept.reason == "It ends early."


def test_five_lost_workers_quarantine_whatever_killed_them(database: Database) -> None:
    job_id = _submit(database)
    for strike in (1, 2, 3, 4, 5):
        job = _claim(database, job_id, f"boot-{strike}:1")
        assert job is not None and job.lost == strike
        with database.writing() as session:
            (moved,) = jobs.expire(session, RULES, worker=f"boot-{strike}")
        assert moved.state is (JobState.QUEUED if strike < 5 else JobState.QUARANTINED)
    kept = _get(database, job_id)
    assert (kept.failures, kept.error_class, kept.claim_no) == (0, "worker_lost", 5)
    assert "boot-5:1" in kept.reason and kept.finished_at is not None


def test_an_error_that_is_not_the_scan_s_fault_costs_no_strike(database: Database) -> None:
    job_id = _submit(database)
    for turn in range(12):
        settled = _waits(database, job_id, OutputFull(f"The disk is full ({turn} MiB are free)."))
        assert (settled.state, settled.failures, settled.lost) == (JobState.QUEUED, 0, 0)
        assert _pause_s(database, settled) == pytest.approx((10, 20, 40)[min(turn, 2)], abs=2)
        assert settled.reason == f"Waits: The disk is full ({turn} MiB are free)."


def _waits(database: Database, job_id: int, error: PhotochromError, rules: Strikes = RULES) -> Job:
    """Claimed at once, whatever it waited for, and waiting again."""
    with database.writing() as session:
        session.execute(sa.update(Job).values(not_before=None))
    job = _claim(database, job_id)
    assert job is not None
    with database.writing() as session:
        return jobs.fail(session, job, error, rules)


def test_a_wait_grows_while_its_reason_stays_and_never_shrinks_below_the_setting(database: Database) -> None:
    job_id = _submit(database)
    full, blocked = OutputFull("Full."), OutputBlocked("Forbidden.")
    pauses = [_pause_s(database, _waits(database, job_id, error)) for error in (full, full, blocked, full, full)]
    assert pauses == pytest.approx([10, 20, 10, 10, 20], abs=2)
    long = dataclasses.replace(RULES, wait_s=90)
    assert _pause_s(database, _waits(database, job_id, full, long)) == pytest.approx(90, abs=2)


def test_a_scan_that_waits_for_weeks_has_few_events(database: Database) -> None:
    """Claims of old and new waits stay told; what lies between two waits for the same thing is what they tell."""
    job_id = _submit(database)
    full, blocked = OutputFull("Full."), OutputBlocked("Forbidden.")
    for _ in range(50):
        _waits(database, job_id, full)
    _waits(database, job_id, blocked)
    for turn in range(50):
        assert _pause_s(database, _waits(database, job_id, full)) == pytest.approx((10, 20, 40)[min(turn, 2)], abs=2)
    claims = [claim_no for state, claim_no, _ in _events(database, job_id) if state == "running"]
    assert claims == [1, 50, 51, 52, 101]
    states = [state for state, _, _ in _events(database, job_id)]
    assert states == ["queued", *["running", "queued"] * 5]


@pytest.mark.parametrize("wait_s", [0.001, 10, 90])
def test_events_stop_growing_whatever_the_first_pause_is(database: Database, wait_s: float) -> None:
    job_id, counts = _submit(database), []
    rules = dataclasses.replace(RULES, wait_s=wait_s)
    for _ in range(24):
        longest = _pause_s(database, _waits(database, job_id, OutputBlocked("Forbidden."), rules))
        counts.append(len(_events(database, job_id)))
    assert counts[-1] == counts[-6] and longest == pytest.approx(max(40, wait_s), abs=2)


@pytest.mark.parametrize(
    ("error", "state", "failures"),
    [
        (ScanUnsupported("A film."), JobState.SKIPPED, 0),
        (ScanVanished("Gone."), JobState.SKIPPED, 0),
        (ScanBroken("No picture."), JobState.QUARANTINED, 1),
        (PhotochromError("Unexpected."), JobState.QUEUED, 1),
        (SetupError("Unexpected."), JobState.QUEUED, 1),
    ],
)
def test_an_error_settles_a_job_by_its_own_rule(
    database: Database, error: PhotochromError, state: JobState, failures: int
) -> None:
    job = _claimed(database)
    with database.writing() as session:
        settled = jobs.fail(session, job, error, RULES)
    assert (settled.state, settled.failures, settled.lost) == (state, failures, 0)
    assert (settled.error_class, settled.error_message, settled.lease_until) == (error.code, str(error), None)
    assert (settled.finished_at is not None) is (state is not JobState.QUEUED)


def test_an_error_without_words_is_recorded_by_its_name(database: Database) -> None:
    job = _claimed(database)
    with database.writing() as session:
        assert jobs.fail(session, job, ScanBroken(), RULES).reason == "ScanBroken"


def test_evidence_that_no_text_column_can_hold_is_recorded_all_the_same(database: Database) -> None:
    """A surrogate comes from a file name, a NUL from a decoder; a row that refused them would never settle."""
    job = _claimed(database)
    with database.writing() as session:
        jobs.fail(session, job, ScanBroken("bad\udcff\0name"), RULES, traceback="tail\udcff\0")
    kept = _get(database, job.id)
    assert kept.state is JobState.QUARANTINED
    assert kept.error_message == r"bad\udcff\x00name" and kept.traceback_tail == r"tail\udcff\x00"


def test_a_worker_that_stops_gives_its_job_back_without_a_strike(database: Database) -> None:
    job = _claimed(database)
    with database.writing() as session:
        jobs.release(session, job, "The worker stops.")
    kept = _get(database, job.id)
    assert (kept.state, kept.lost, kept.failures, kept.not_before) == (JobState.QUEUED, 0, 0, None)
    assert _claim(database, job.id, "w:2") is not None


def test_strikes_come_from_the_settings() -> None:
    rules = strikes.in_force(Settings(max_failures=7, max_lost=8, retry_s=9, wait_s=4))
    assert rules == Strikes(failures=7, lost=8, retry_s=9, wait_s=4)


# --- expiry and retry ------------------------------------------------------------------------------------------------


def test_only_leases_that_ran_out_expire(database: Database) -> None:
    void = _submit(database, state=JobState.RUNNING, lease_until=after(-1), worker="a:1", claim_no=1, lost=1)
    live = _claim(database, _submit(database, path=b"b.tif", sha256=B), "b:1")
    assert live is not None
    with database.writing() as session:
        assert jobs.anything_expired(session, RULES)
        assert [job.id for job in jobs.expire(session, RULES)] == [void]
        assert not jobs.anything_expired(session, RULES)
    kept = _get(database, void)
    assert (kept.state, kept.lost, kept.lease_until, kept.dispatched_at) == (JobState.QUEUED, 1, None, None)
    assert _get(database, live.id).state is JobState.RUNNING
    assert _events(database, void)[-1] == ("queued", 1, "a:1")


def test_a_lease_from_before_the_clock_was_put_back_expires(database: Database) -> None:
    job_id = _submit(database, state=JobState.RUNNING, lease_until=after(7200), worker="a:1", claim_no=1, lost=1)
    with database.writing() as session:
        assert jobs.anything_expired(session, RULES)
        assert [job.id for job in jobs.expire(session, RULES)] == [job_id]


def test_a_dead_worker_s_jobs_come_back_at_once_and_nobody_else_s(database: Database) -> None:
    names = ["host_1-7-ab:1", "host_1-7-ab:2", "hostX1-7-ab:1", "host_1-7-abc:1", "other:1"]
    ids = {}
    for number, worker in enumerate(names):
        job = _claim(database, _submit(database, path=b"%d.tif" % number, sha256=f"{number}" * 64), worker)
        assert job is not None
        ids[worker] = job.id
    with database.writing() as session:
        moved = {job.id for job in jobs.expire(session, RULES, worker="host_1-7-ab:")}
    assert moved == {ids["host_1-7-ab:1"], ids["host_1-7-ab:2"]}


@pytest.mark.parametrize("state", ALL)
def test_only_quarantined_and_skipped_jobs_are_sent_back(database: Database, state: JobState) -> None:
    job_id = _submit(
        database, state=state, failures=3, lost=4, not_before=after(900), finished_at=after(0), claim_no=5
    )  # fmt: skip
    if state not in {JobState.QUARANTINED, JobState.SKIPPED}:
        with pytest.raises(JobMoved), database.writing() as session:
            jobs.retry(session, job_id)
        assert _get(database, job_id).state is state
        return
    with database.writing() as session:
        jobs.retry(session, job_id)
    kept = _get(database, job_id)
    assert (kept.state, kept.failures, kept.lost, kept.not_before, kept.finished_at, kept.claim_no) == (
        JobState.QUEUED, 0, 0, None, None, 5,
    )  # fmt: skip
    assert _claim(database, job_id) is not None


def test_jobs_that_missed_their_file_are_found_by_root(database: Database) -> None:
    skipped = {"state": JobState.SKIPPED, "error_class": "vanished"}
    mine = _submit(database, **skipped)
    _submit(database, path=b"b.tif", sha256=B, **{**skipped, "error_class": "unsupported"})
    _submit(database, path=b"c.tif", sha256="c" * 64, **skipped, root="elsewhere")
    with database.reading() as session:
        assert outbox.missed(session, "archive") == [(mine, b"a.tif")]


def test_a_whole_life_leaves_an_event_for_every_move(database: Database) -> None:
    job_id = _submit(database)
    for worker, error in (("a", ScanTruncated("1")), ("b", ScanBroken("2"))):
        with database.writing() as session:
            session.execute(sa.update(Job).values(not_before=None))
        job = _claim(database, job_id, worker)
        assert job is not None
        with database.writing() as session:
            jobs.fail(session, job, error, RULES)
    with database.writing() as session:
        jobs.retry(session, job_id)
    job = _claim(database, job_id, "c")
    assert job is not None
    with database.writing() as session:
        jobs.finish(session, job, JobState.NEEDS_REVIEW, reason="")
    _submit(database, sha256=B)
    assert [(state, claim_no) for state, claim_no, _ in _events(database, job_id)] == [
        ("queued", 0), ("running", 1), ("queued", 1), ("running", 2), ("quarantined", 2), ("queued", 2),
        ("running", 3), ("needs_review", 3), ("superseded", 3),
    ]  # fmt: skip


def test_a_move_that_is_rolled_back_leaves_no_event(database: Database) -> None:
    job_id = _submit(database)
    with pytest.raises(RuntimeError), database.writing() as session:
        jobs._move(session, job_id, JobState.RUNNING)
        raise RuntimeError
    assert _get(database, job_id).state is JobState.QUEUED
    assert _events(database, job_id) == [("queued", 0, None)]
