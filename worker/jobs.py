"""The job record's moves. This is the one module that writes `jobs.state`, and every move is one guarded UPDATE.

A claim takes a lease and a `claim_no`. The number only ever rises and fences: whoever holds an older one can neither
renew, nor finish, nor fail the job. `lost` is counted when the work begins and taken back when it ends by itself, so
that a worker which dies, however it dies, has left its strike behind.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker import leases, strikes
from worker.db import after
from worker.errors import JobMoved, PhotochromError, Settles
from worker.strikes import Strikes
from worker.tables import Job, JobEvent, JobState, Root, RootState, SourceFile
from worker.twins import due, elder_twin

#: state → the states it may be entered from
ENTER_FROM: Final[Mapping[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset(JobState) - {JobState.QUEUED, JobState.SUPERSEDED},
    JobState.RUNNING: frozenset({JobState.QUEUED}),
    JobState.DONE: frozenset({JobState.RUNNING}),
    JobState.NEEDS_REVIEW: frozenset({JobState.RUNNING}),
    JobState.DUPLICATE: frozenset({JobState.RUNNING}),
    JobState.SKIPPED: frozenset({JobState.RUNNING, JobState.QUARANTINED}),
    JobState.QUARANTINED: frozenset({JobState.RUNNING}),
    JobState.SUPERSEDED: frozenset(JobState) - {JobState.SUPERSEDED},
}
#: states of a job that has a published derivative
PUBLISHED: Final = frozenset({JobState.DONE, JobState.NEEDS_REVIEW, JobState.DUPLICATE})
#: states of a job that is still to be done
OPEN: Final = frozenset({JobState.QUEUED, JobState.RUNNING})
#: what an operator may send back into the queue
RETRYABLE: Final = frozenset({JobState.QUARANTINED, JobState.SKIPPED})
#: error classes of jobs whose worker was gone: it died, or was ended because the job took too long
LOST: Final = "worker_lost"
TOO_LONG: Final = "time_limit"


def _move(session: Session, job_id: int, to: JobState, *where: Any, note: str = "", **changes: Any) -> Job:
    """One guarded UPDATE, and its event. The WHERE clause is the state machine, so a race has one winner."""
    query = sa.update(Job).where(Job.id == job_id, Job.state.in_(ENTER_FROM[to]), *where)
    moved = session.scalars(
        query.values(state=to, **changes).returning(Job), execution_options={"populate_existing": True}
    ).one_or_none()
    if moved is None:
        raise JobMoved(f"Job {job_id} cannot enter {to}: another worker or an operator has moved it.")
    session.add(JobEvent(job_id=job_id, state=to, claim_no=moved.claim_no, worker=moved.worker, note=note))
    return moved


def submit(
    session: Session, file: SourceFile, sha256: str, *, priority: int, variant: str = "", **recolor: Any
) -> tuple[Job, bool]:
    """Record a job for a file's present content; the same content again is a no-op.

    Args:
        session: a writing session.
        file: the file's row, with the stat that was true before and after hashing.
        sha256: of the file's bytes.
        priority: 0 (first) to 9.
        variant: "" for the folder's own derivative, else the name of a re-run.
        recolor: `model_version` and `parameters` of a re-run.

    Returns:
        The live job, and whether it is new or was sent back into the queue.
    """
    live = session.scalars(
        sa.select(Job).where(Job.source_file_id == file.id, Job.variant == variant, Job.state != JobState.SUPERSEDED)
    ).one_or_none()
    if live is not None and live.source_sha256 == sha256:
        if live.state is JobState.SKIPPED and live.error_class in {"vanished", "ignored"}:
            return retry(session, live.id, note="the file came back"), True
        return live, False
    if live is not None:
        _move(session, live.id, JobState.SUPERSEDED, note="new content", reason="The scan has new content.")
        _supersede_reruns(session, file, sha256)
    job = Job(
        source_file_id=file.id,
        root=file.root,
        path=file.path,
        display_path=file.display_path,
        source_sha256=sha256,
        size_bytes=file.size_bytes,
        priority=priority,
        variant=variant,
        **recolor,
    )
    session.add(job)
    session.flush()
    session.add(JobEvent(job_id=job.id, state=JobState.QUEUED, claim_no=0, note="submitted"))
    return job, True


def _supersede_reruns(session: Session, file: SourceFile, sha256: str) -> None:
    """Open re-runs of a file would wait for ever for its old content; those of the present one stay."""
    rerun = sa.select(Job.id).where(Job.source_file_id == file.id, Job.variant != "", Job.state.in_(OPEN))
    rerun = rerun.where(Job.source_sha256 != sha256)
    for job_id in session.scalars(rerun).all():
        reason = "The scan has new content; recolour it again if you want it by this version."
        _move(session, job_id, JobState.SUPERSEDED, note="new content", reason=reason)


def claim(
    session: Session, job_id: int, *, worker: str, device: str, host: str, model_version: str, lease_s: float
) -> Job | None:
    """Take a lease on a queued job that is due; None when somebody else has it or there is nothing to do.

    Nor is one whose root is offline claimed, though its message is out: whoever touched a share that does not answer
    would wait for it, and all other scans with him. Its message counts as lost, and is sent again.

    The job keeps the model version it was pinned to, or is pinned to `model_version`. Twins (the same bytes under
    another path) wait for the elder, so that the net runs once; of two that are claimed at once, one sees the other.
    """
    sha256 = session.scalar(sa.select(Job.source_sha256).where(Job.id == job_id))
    leases.take_turns(session, str(sha256).encode())
    try:
        return _move(
            session,
            job_id,
            JobState.RUNNING,
            due(Job),
            ~elder_twin(),
            Job.root.not_in(sa.select(Root.name).where(Root.state == RootState.OFFLINE)),
            claim_no=Job.claim_no + 1,
            lost=Job.lost + 1,
            worker=worker,
            device=device,
            host=host,
            model_version=sa.func.coalesce(Job.model_version, model_version),
            lease_until=after(lease_s),
            started_at=after(0),
            not_before=None,
        )
    except JobMoved:
        return None


def _held(job: Job) -> sa.ColumnElement[bool]:
    return sa.and_(Job.state == JobState.RUNNING, Job.claim_no == job.claim_no)


def renew(session: Session, job: Job, lease_s: float, **target: Any) -> None:
    """Renew the lease of a claimed job and, before publishing, record what is about to be published and where.

    Raises:
        JobMoved: the claim is void; nothing may be published.
    """
    renewed = session.execute(
        sa.update(Job).where(Job.id == job.id, _held(job)).values(lease_until=after(lease_s), **target)
    )
    if renewed.rowcount != 1:  # type: ignore[attr-defined]
        raise JobMoved(f"The claim {job.claim_no} on job {job.id} is void.")


def finish(session: Session, job: Job, state: JobState, *, reason: str, **fields: Any) -> Job:
    """End a claimed job: published, or skipped.

    Raises:
        JobMoved: the claim is void; what was published by it is not recorded.
    """
    return _move(
        session,
        job.id,
        state,
        _held(job),
        note=reason,
        reason=reason,
        lost=Job.lost - 1,
        lease_until=None,
        finished_at=after(0),
        **{"error_class": None, "error_message": None, "traceback_tail": None, **fields},
    )


def fail(session: Session, job: Job, error: PhotochromError, rules: Strikes, traceback: str = "") -> Job:
    """Settle a claimed job after an error, by the error's own rule: again, wait, skip or quarantine.

    Raises:
        JobMoved: the claim is void.
    """
    evidence = strikes.evidence(error, traceback)
    message = evidence["error_message"]
    if error.settles is Settles.SKIP:
        return finish(session, job, JobState.SKIPPED, reason=message, **evidence)
    if error.settles is Settles.WAIT:
        pause_s = strikes.pause_without_strike_s(session, rules, job, error)
        strikes.fold_waits(session, rules, job, error)
        note = f"{strikes.waits_for(error.code)} {message}"
        return _again(session, job, after(pause_s), f"Waits: {message}", note=note, **evidence)
    failures = job.failures + 1
    if error.settles is Settles.QUARANTINE or failures >= rules.failures:
        evidence["failures"] = failures
        return finish(session, job, JobState.QUARANTINED, reason=message, **evidence)
    pause_s = strikes.pause_after_strike_s(rules, failures)
    return _again(session, job, after(pause_s), f"Will be tried again: {message}", failures=failures, **evidence)


def release(session: Session, job: Job, reason: str) -> Job:
    """Give a claimed job back untouched, without a strike (the worker is stopping)."""
    return _again(session, job, None, reason)


def _again(session: Session, job: Job, not_before: Any, reason: str, note: str = "", **fields: Any) -> Job:
    return _move(
        session, job.id, JobState.QUEUED, _held(job), note=note or reason, reason=reason, lost=Job.lost - 1,
        lease_until=None, dispatched_at=None, not_before=not_before, **fields,
    )  # fmt: skip


def expire(
    session: Session,
    rules: Strikes,
    *,
    worker: str | None = None,
    job_id: int | None = None,
    how: str = "",
    cause: str = LOST,
) -> list[Job]:
    """Take back the jobs of workers that are gone: leases that ran out, or all of `worker`'s.

    Args:
        session: a writing session.
        rules: after `rules.lost` lost workers a job is quarantined.
        worker: a worker known to be dead, by its name; its leases need not run out.
        job_id: only this job of the worker's.
        how: the worker's end, for the evidence: a signal or an exit code.
        cause: LOST or TOO_LONG, the error that is recorded.
    """
    gone = Job.worker.startswith(worker, autoescape=True) if worker else _void(rules)
    gone = sa.and_(gone, sa.true() if job_id is None else Job.id == job_id)
    moved = []
    for job in session.scalars(sa.select(Job).where(Job.state == JobState.RUNNING, gone)).all():
        with contextlib.suppress(JobMoved):  # its worker renewed or ended it this instant
            moved.append(_take_back(session, job, rules, gone, how, cause))
    return moved


def _take_back(session: Session, job: Job, rules: Strikes, gone: sa.ColumnElement[bool], how: str, cause: str) -> Job:
    why = f"The worker {job.worker} was lost while it had this scan" + (f" ({how})" if how else "")
    to, end = JobState.QUEUED, dict[str, Any](reason=f"{why}; it will be done again.", dispatched_at=None)
    if job.lost >= rules.lost:
        to, end = JobState.QUARANTINED, {"reason": f"{why}; lost workers: {job.lost}.", "finished_at": after(0)}
    end |= {"error_class": cause, "error_message": why}
    return _move(session, job.id, to, _held(job), gone, note=why, lease_until=None, **end)


def retry(session: Session, job_id: int, note: str = "retry", *, force: bool = False) -> Job:
    """Send a quarantined or skipped job back into the queue, its strikes forgiven.

    With `force` it is coloured even if it is in colour already, bitonal or blank.

    Raises:
        JobMoved: it is in another state, or does not exist.
    """
    if force and (job := session.get(Job, job_id)) is not None:
        job.parameters = {**job.parameters, "force": True}
        session.flush()
    return _forgiven(session, job_id, Job.state.in_(RETRYABLE), note)


def do_again(session: Session, job: Job) -> Job:
    """Send a published job back whose derivative or sidecar was seen to be lost; JobMoved if done again since."""
    seen = sa.and_(Job.state.in_(PUBLISHED), Job.claim_no == job.claim_no)
    return _forgiven(session, job.id, seen, "its derivative or sidecar is lost")


def _forgiven(session: Session, job_id: int, where: sa.ColumnElement[bool], note: str) -> Job:
    return _move(session, job_id, JobState.QUEUED, where, note=note, reason="Sent back into the queue.", failures=0,
                 lost=0, not_before=None, dispatched_at=None, finished_at=None, duplicate_of=None)  # fmt: skip


def dismiss(session: Session, job_id: int) -> Job:
    """Let a quarantined job be: a person has seen it and wants no more of it. It can still be sent back.

    Raises:
        JobMoved: it is in another state, or does not exist.
    """
    dismissed = Job.state == JobState.QUARANTINED
    return _move(session, job_id, JobState.SKIPPED, dismissed, note="dismissed", reason="Dismissed by an operator.",
                 finished_at=after(0))  # fmt: skip


def _void(rules: Strikes) -> sa.ColumnElement[bool]:
    return leases.is_void(Job.lease_until, leases.LONGER_ELSEWHERE * rules.lease_s)


def anything_expired(session: Session, rules: Strikes) -> bool:
    """Is there a running job whose lease is void?"""
    void = sa.select(Job.id).where(Job.state == JobState.RUNNING, _void(rules)).limit(1)
    return session.scalar(void) is not None
