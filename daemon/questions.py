"""The verbs that ask the record. Data goes to stdout, with --json as JSON; nothing is changed but by `retry`."""

import dataclasses
import datetime as dt
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import click
import sqlalchemy as sa

from daemon.explanation import look_at
from worker import jobs, training_runs
from worker.addresses import without_password
from worker.db import Database
from worker.errors import ExitCode, JobMoved
from worker.json_output import print_json, print_json_rows
from worker.names import SIDECAR_SUFFIX
from worker.originals import open_below
from worker.pages import ROW_ID, rows_by_id
from worker.record import record
from worker.settings import config_file, load
from worker.tables import JOB_STATUS, Job, JobState, Root, absolute, display

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.option("--watch", "every_2_s", is_flag=True, help="Show it again every 2 seconds, until Ctrl-C.")
@as_json
def status(every_2_s: bool, as_json: bool) -> None:
    """Counts per state and root, the oldest waiting scan, the rate, and what the parts are doing."""
    from worker.overview import database_time, overview, unreadable

    settings = load()
    models = {root.key: root.model for root in settings.watched}
    with record(settings) as database:
        while True:
            with database.reading() as session:
                seen, now = overview(session), database_time(session)
                count, first = unreadable(session)
            if as_json:
                told = dataclasses.asdict(seen)
                for root in told["roots"]:
                    root["model"] = models.get(root["name"], "")
                told["unreadable"] = {"count": count, "first": [{"path": path, "reason": why} for path, why in first]}
                print_json({"at": now, "state_dir": str(settings.state_dir), **told})
            else:
                if every_2_s:
                    click.clear()
                click.echo(_status_text(seen, now, models))
                for path, why in first:
                    click.echo(f"BLOCKED {path}: {why}")
                if count > len(first):
                    click.echo(f"BLOCKED {count - len(first)} more that cannot be read")
            if not every_2_s:
                return
            time.sleep(2)


def _status_text(seen: Any, now: dt.datetime, models: Mapping[str, str]) -> str:
    """The status as a person reads it; `models`: the version that each folder is bound to, if it is."""
    lines = []
    for root in seen.roots:
        scanned = f"scanned {ago(now, root.scanned_at)}" if root.scanned_at else "not scanned yet"
        arrow = f" → {root.output}" if root.output else ""
        bound = f", model {models[root.name]}" if models.get(root.name) else ""
        state = f"{root.state}, by {root.mode}" if root.watched else "nobody watches it: start `photochrom up`"
        lines.append(f"{root.path}{arrow}   {state}, {root.files} files, {scanned}{bound}")
        lines += [f"    {reason}" for reason in (root.reason, root.mode_reason) if reason]
    files = {state: count for state, count in seen.files.items() if state != "submitted"}
    lines.append("files  " + (_counts(files) or "none waiting"))
    lines.append("jobs   " + (_counts(seen.jobs) or "none yet"))
    if seen.curated:
        lines.append("photos " + _counts(seen.curated) + "   (curated)")
    if seen.training:
        lines.append("train  " + training_runs.sentence(seen.training))
    for version, problem in seen.broken_versions:
        lines.append(f"BROKEN version {version} does not load: {problem}")
    lines.append(f"rate   {seen.per_minute} derivatives in the last minute")
    if seen.oldest_waiting is not None:
        lines.append(f"oldest waiting scan: submitted {ago(now, seen.oldest_waiting)}")
    for path, worker, device, since in seen.working:
        lines.append(f"now    {path} on {device}, since {ago(now, since)}   ({worker})")
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(counts.items()))


def ago(now: dt.datetime, then: dt.datetime) -> str:
    """How long a time is past, in one short unit."""
    seconds = max(0.0, (now - then).total_seconds())
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


@click.command("jobs")
@click.option("--state", type=click.Choice([state.value for state in JobState]), help="Only jobs in this state.")
@as_json
def jobs_(state: str | None, as_json: bool) -> None:
    """List jobs, oldest first: the columns of the view job_status."""
    query = sa.select(JOB_STATUS)
    if state:
        query = query.where(JOB_STATUS.c.state == state)
    with record(load()) as database:
        rows = rows_by_id(database, query, JOB_STATUS.c.id)
        if as_json:
            print_json_rows(row._asdict() for row in rows)
            return
        for row in rows:
            click.echo(f"{row.id:>6}  {row.state:<12}  {row.path}  {row.reason}")


@click.command()
@click.argument("path")  # no click.Path, which looks at it: it is asked about what cannot be read, or does not answer
@as_json
def why(path: str, as_json: bool) -> None:
    """Say in one sentence what became of PATH, and why."""
    from daemon.explain import why as explain

    settings = load()
    with record(settings) as database, database.reading() as session:
        explanation = explain(session, settings, os.fsencode(path))
    if as_json:
        print_json(dataclasses.asdict(explanation))
    else:
        click.echo(explanation.sentence)


@click.command()
@click.argument("ids", metavar="ID…", type=ROW_ID, nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Colour also what is in colour already, bitonal or blank.")
def retry(ids: tuple[int, ...], force: bool) -> None:
    """Send jobs back into the queue, their strikes forgiven: quarantined, skipped, or derivative or sidecar lost."""
    refused = 0
    with record(load()) as database:
        for job_id in ids:
            try:
                job = _sent_back(database, job_id, force)
                click.echo(f"Job {job_id} ({job.display_path}) waits in the queue again.")
            except JobMoved as error:
                refused += 1
                click.echo(f"Job {job_id} {error}", err=True)
    if refused:
        sys.exit(ExitCode.FAILED)


def _sent_back(database: Database, job_id: int, force: bool) -> Job:
    """A job that was sent back into the queue.

    Raises:
        JobMoved: it is not sent back; the message says why, without the job.
    """
    try:
        with database.writing() as session:
            return jobs.retry(session, job_id, force=force)
    except JobMoved:
        with database.reading() as session:
            job = session.get(Job, job_id)
            root = session.get(Root, job.root) if job is not None else None
    if job is None:
        raise JobMoved("is not in the record; see `photochrom jobs`.")
    if root is None or job.state not in jobs.PUBLISHED or job.output_path is None:
        raise JobMoved(f"is neither quarantined nor skipped, but {job.state}; see `photochrom jobs`.")
    derivative = absolute(root.output, job.output_path)
    if not os.path.isdir(root.output):
        raise JobMoved(f"is {job.state}, and its output folder {display(root.output)} is not there: mount it.")
    if os.path.lexists(derivative) and not (load().sidecar and _lacks_sidecar(root, job)):
        raise JobMoved(f"is {job.state}; to have it done again, move its derivative {display(derivative)} away.")
    original = absolute(root.path, job.path)
    if look_at(original) is None:  # a share that does not answer says nothing
        raise JobMoved(f"is {job.state}, and its original {display(original)} is not there to make it again from.")
    with database.writing() as session:
        return jobs.do_again(session, job)


def _lacks_sidecar(root: Root, job: Job) -> bool:
    """Whether only the sidecar of a derivative is lost; one with other bytes than ours would not be replaced."""
    path = job.output_path or b""
    if os.path.lexists(absolute(root.output, path + SIDECAR_SUFFIX)):
        return False
    try:
        with os.fdopen(open_below(root.output, path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == job.output_sha256
    except OSError:
        return False


@click.command()
@as_json
def config(as_json: bool) -> None:
    """Print every setting in force and what it means; those that were set carry a *."""
    settings = load()
    values = settings.model_dump(mode="json")
    for name in ("database_url", "broker_url"):
        if values[name]:
            values[name] = without_password(values[name])
    if as_json:
        print_json(values)
        return
    file = config_file()
    click.echo(f"# from PHOTOCHROM_* variables and {file} ({'found' if file.is_file() else 'not there'})")
    for name, field in type(settings).model_fields.items():
        changed = "  *" if name in settings.model_fields_set else ""
        click.echo(f"{name} = {json.dumps(values[name], ensure_ascii=False)}{changed}")
        click.echo(f"    # {field.description or ''}")


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    """Check settings, folders, database, broker, disk and weights; the exit code is 0 when all is well."""
    from daemon import examine

    findings = examine.all_findings(load())
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            click.echo(f"{'ok ' if finding.ok else 'BAD'}  {finding.what:<{width}}  {finding.says}")
    bad = [finding for finding in findings if not finding.ok]
    if bad:
        sys.exit(bad[0].exit_code)
