"""One true sentence about a job: what became of it, what it waits for, whether its derivative is still there."""

import datetime as dt
import os
import stat

import sqlalchemy as sa
from sqlalchemy.orm import Session

from daemon.explanation import at, error_words, look_at, state_words
from worker import leases, strikes, training_runs, twins
from worker.jobs import OPEN, PUBLISHED
from worker.overview import database_time
from worker.settings import Settings
from worker.tables import Job, JobEvent, JobState, Root, RootState, absolute, display

_PUBLISHED = {
    JobState.DONE: "Done",
    JobState.NEEDS_REVIEW: "Published, but needs review,",
    JobState.DUPLICATE: "Published as a copy",
}


def job_sentence(session: Session, settings: Settings, job: Job) -> str:
    """What became of a job."""
    if job.state is JobState.QUEUED:
        return _queued(session, settings, job)
    if job.state is JobState.RUNNING:
        return _running(session, settings, job)
    if job.output_path is not None and job.state in _PUBLISHED:
        return (
            f"{_PUBLISHED[job.state]} at {at(job.finished_at)} by model {job.model_version}: "
            f"{job.display_output_path} (sha256 {job.output_sha256}). {job.reason}"
        ).rstrip() + if_lost(session.get_one(Root, job.root), job)
    if job.state is JobState.SKIPPED:
        return f"Skipped at {at(job.finished_at)}: {job.reason}"
    if job.state is JobState.QUARANTINED:
        return (
            f"Quarantined at {at(job.finished_at)} after {job.claim_no} attempts: {job.reason} "
            f"Repair or replace the file, or run `photochrom retry {job.id}`."
        )
    return f"Superseded: {job.reason}"


def if_lost(root: Root, job: Job) -> str:
    """What is wrong with a job's derivative, as it lies now below the output folder, and how to get it back."""
    output = root.output
    seen = look_at(absolute(output, job.output_path or b""))
    if isinstance(seen, OSError):
        return f" It cannot be looked at now: {error_words(seen)}."
    if seen is not None:
        return "" if stat.S_ISREG(seen.st_mode) else " What has its name now is no regular file."
    if not os.path.isdir(output):
        return f" It is not there now, and neither is the output folder {display(output)}: mount it."
    again = f" If it is lost, `photochrom retry {job.id}` makes it again from the original."
    if root.state is RootState.OFFLINE:
        again += f" First its watched folder {display(root.path)} has to be back: {root.reason}"
    elif look_at(absolute(root.path, job.path)) is None:
        again = " Nor is the original, to make it again from: restore either from a backup."
    return not_there(job) + (again if job.state in PUBLISHED else "")


def not_there(job: Job) -> str:
    """What it means that a file which a job has named, before or after it published it, is not in the output folder."""
    if job.state in OPEN:
        return " It is not there: its job is still to be done."
    if job.state in PUBLISHED or job.state is JobState.SUPERSEDED:
        return " It is not there now: moved, deleted, or its disk is not mounted."
    return " It is not there: its job ended without it."


def _running(session: Session, settings: Settings, job: Job) -> str:
    began = f"eing coloured since {at(job.started_at)} by {job.worker} on {job.device}"
    now = database_time(session)
    if not leases.ended_by(now, job.lease_until, leases.LONGER_ELSEWHERE * settings.lease_s):
        return f"B{began}."
    # a lease from before the clock was put back ends later; it has not been renewed since
    silent = f"which fell silent before {at(min(job.lease_until or now, now))}"
    if job.lost >= settings.max_lost:
        return f"Was b{began}, {silent}; it is quarantined soon, as it has lost {job.lost} workers."
    return f"Was b{began}, {silent}; it is given back to the queue soon and done again."


def _queued(session: Session, settings: Settings, job: Job) -> str:
    since = f"since {at(_waits_since(session, job))}"
    if job.not_before is not None and job.not_before > database_time(session):
        return f"Waits {since} until {at(job.not_before)}, attempt {job.claim_no + 1}. {job.reason}"
    root = session.get(Root, job.root)
    if root is not None and root.reason:  # paused, or offline
        return f"Waits in the queue {since}. {root.reason}"
    if settings.retrain_pauses_colouring and training_runs.under_way(session):
        return f"Waits in the queue {since} for the training run that is under way."
    if (elder := twins.elder_of(session, job)) is not None:
        return (
            f"Waits in the queue {since} for job {elder.id} ({elder.display_path}, "
            f"{state_words(elder.state)}), which has the same bytes: its derivative will be copied."
        )
    return f"Waits in the queue {since}, {_before(session, job)} before it. {job.reason}".rstrip()


def _waits_since(session: Session, job: Job) -> dt.datetime | None:
    """When a job that pauses began to wait for what it waits for: it may have been tried again in vain since."""
    moves = sa.select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.state != JobState.RUNNING)
    moves = moves.order_by(JobEvent.id.desc())
    same = JobEvent.note.startswith(strikes.waits_for(job.error_class or ""), autoescape=True)
    other = session.scalar(moves.where(~same).limit(1))
    first = sa.select(sa.func.min(JobEvent.at)).where(JobEvent.job_id == job.id, same)
    since = session.scalar(first.where(JobEvent.id > other.id) if other is not None else first)
    return since or (other.at if other is not None else job.created_at)


def _before(session: Session, job: Job) -> int:
    """How many jobs are more urgent, or as urgent and older; those of folders that are offline wait for longer."""
    there = sa.select(Root.name).where(Root.state == RootState.ONLINE)
    queued = sa.select(sa.func.count()).select_from(Job).where(Job.state == JobState.QUEUED, Job.root.in_(there))
    urgent = session.scalar(queued.where(Job.priority < job.priority)) or 0
    return urgent + (session.scalar(queued.where(Job.priority == job.priority, Job.id < job.id)) or 0)
