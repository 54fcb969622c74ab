"""`photochrom quarantine`: what was given up on, with its evidence, and what a person decides about it."""

import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import click
import sqlalchemy as sa
from sqlalchemy.orm import Session

from daemon.explanation import at
from daemon.questions import as_json
from worker import jobs
from worker.answers import ask
from worker.db import Database
from worker.errors import ExitCode, JobMoved, PhotochromError
from worker.json_output import print_json, print_json_rows
from worker.meanings import in_words
from worker.originals import open_below
from worker.pages import ROW_ID, rows_by_id
from worker.record import record
from worker.settings import load
from worker.tables import Job, JobEvent, JobState, Root, SourceFile, absolute, display

#: how a worker ended, as its pool and our own notes tell it
_END: Final = re.compile(r"signal \d+ \(\w+\)|exit ?code:? -?\d+|status \d+|time limit of [\d.e+]+ s")


@click.group()
def quarantine() -> None:
    """Scans that were given up on: list them, look at the evidence, send them back, or let them be."""


@quarantine.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List quarantined scans, oldest first."""
    query = sa.select(
        Job.id, Job.root, Job.display_path.label("path"), Job.error_class.label("error"), Job.reason,
        Job.claim_no.label("attempts"), Job.finished_at.label("since"),
    ).where(Job.state == JobState.QUARANTINED)  # fmt: skip
    row = None
    with record(load()) as database:
        rows = rows_by_id(database, query, Job.id)
        if as_json:
            print_json_rows(row._asdict() for row in rows)
            return
        for row in rows:
            click.echo(f"{row.id:>6}  {row.error or 'unknown':<12}  {row.path}  {row.reason}")
    if row is None:
        click.echo("Nothing is quarantined.")


@quarantine.command()
@click.argument("job_id", metavar="ID", type=ROW_ID)
@as_json
def show(job_id: int, as_json: bool) -> None:
    """Show the evidence on one scan: error, traceback, the file then and now, host, model, attempts, last end."""
    with record(load()) as database:
        with database.reading() as session:
            report, root, path = evidence(session, job_id)
        if root is not None:  # no transaction is open while a large file is read, or a share does not answer
            report["now"] = _as_it_is_now(root, path)
    if as_json:
        print_json(report)
        return
    for name, value in report.items():
        click.echo(f"{name}:{_in_text(value)}")


def _in_text(value: Any) -> str:
    """A value of the report for a person: text of several lines, and each part of a list, below its name."""
    if isinstance(value, dict):
        return "".join(f"\n  {name}: {'-' if part is None else part}" for name, part in value.items())
    if isinstance(value, list):
        return "".join("\n  " + _event_line(event) for event in value)
    text = "-" if value is None else str(value)
    return f"\n{text.rstrip()}" if "\n" in text else f" {text}"


def _event_line(event: Mapping[str, Any]) -> str:
    by = f" by {event['worker']}" if event["worker"] else ""
    return f"{at(event['at'])}  {event['state']}, claim {event['claim_no']}{by}  {event['note']}".rstrip()


def evidence(session: Session, job_id: int) -> tuple[dict[str, Any], bytes | None, bytes]:
    """Everything the record knows about why a job was given up; its root, if there is one, and its path below that.

    Args:
        session: a reading session.
        job_id: of a job in any state; most is known of a quarantined one.

    Raises:
        PhotochromError: there is no such job.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise PhotochromError(f"There is no job {job_id}. `photochrom jobs` names those that there are.")
    file, root = session.get_one(SourceFile, job.source_file_id), session.get(Root, job.root)
    events = session.scalars(sa.select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)).all()
    ends = [found[0] for event in events if (found := _END.search(event.note))]
    report = {
        "id": job.id, "state": job.state, "root": job.root, "path": job.display_path, "reason": job.reason,
        "error": job.error_class, "message": job.error_message, "traceback_tail": job.traceback_tail,
        "attempts": job.claim_no, "failures": job.failures, "lost_workers": job.lost,
        "last_end": ends[-1] if ends else None,
        "host": job.host, "worker": job.worker, "device": job.device, "model_version": job.model_version,
        "source_sha256": job.source_sha256,
        "recorded": {"size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns, "ctime_ns": file.ctime_ns,
                     "inode": file.inode},
        "now": None,
        "events": [_told(event) for event in events],
    }  # fmt: skip
    return report, root.path if root is not None else None, job.path


def _told(event: JobEvent) -> dict[str, Any]:
    told: dict[str, Any] = {
        "at": event.at, "state": event.state, "claim_no": event.claim_no, "worker": event.worker, "note": event.note,
    }  # fmt: skip
    return told


def _as_it_is_now(root: bytes, below: bytes) -> dict[str, Any]:
    """Stat and sha256 of a file; the error where it cannot be looked at."""
    path = absolute(root, below)
    told: dict[str, Any] = {"path": display(path)}
    try:
        status = ask(path, partial(os.lstat, path))
        told |= {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns,
                 "inode": status.st_ino, "mode": oct(status.st_mode), "owner": status.st_uid}  # fmt: skip
        if not stat.S_ISREG(status.st_mode):
            return told | {"error": "It is no regular file now."}
        with os.fdopen(open_below(root, below), "rb") as file:
            return told | {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        return told | {"error": in_words(error)}


@quarantine.command()
@click.argument("ids", metavar="ID…", type=ROW_ID, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every quarantined scan.")
def retry(ids: tuple[int, ...], everything: bool) -> None:
    """Send quarantined scans back into the queue, their strikes forgiven: after a repair of what was wrong."""
    _decide(ids, everything, jobs.retry, "waits in the queue again")


@quarantine.command()
@click.argument("ids", metavar="ID…", type=ROW_ID, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every quarantined scan.")
def dismiss(ids: tuple[int, ...], everything: bool) -> None:
    """Let quarantined scans be: they count as skipped; `photochrom retry` and new content still take them again."""
    _decide(ids, everything, jobs.dismiss, "is let be")


def _quarantined(database: Database) -> Iterator[int]:
    query = sa.select(Job.id).where(Job.state == JobState.QUARANTINED)
    return (row.id for row in rows_by_id(database, query, Job.id))


def _decide(ids: tuple[int, ...], everything: bool, move: Any, outcome: str) -> None:
    if not ids and not everything:
        raise click.UsageError("Name the jobs (`photochrom quarantine list`), or all of them with --all.")
    refused = 0
    with record(load()) as database:
        for job_id in _quarantined(database) if everything else ids:
            try:
                with database.writing() as session:
                    job = move(session, job_id)
                click.echo(f"Job {job_id} ({job.display_path}) {outcome}.")
            except JobMoved:
                refused += 1
                click.echo(f"Job {job_id} is not quarantined; see `photochrom jobs`.", err=True)
    if refused:
        sys.exit(ExitCode.FAILED)
