"""One report for each batch when its last file has ended: `batch-report.json` and `.txt` beside its derivatives."""

import datetime as dt
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Collection
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from daemon.batches import NOT_LISTED
from daemon.checksum_list import parse_manifest
from worker import fault
from worker.db import Database
from worker.errors import PhotochromError
from worker.fixity import manifest_line
from worker.jobs import OPEN, PUBLISHED
from worker.originals import open_below
from worker.output_folder import output_errors, write_all
from worker.publish import Publication, remove_left_behind
from worker.settings import RootSettings
from worker.tables import FileState, Job, JobEvent, SourceFile, absolute, display

logger = logging.getLogger(__name__)

NAME: Final = b"batch-report"
#: says in the file itself whose it is: nothing else is ever replaced
FORMAT: Final = "photochrom batch report 1"
#: from a report that could not be written to the next try: each reads the whole batch
RETRY_S: Final = 20.0


class Reporter:
    """Writes the reports of one root, again when something about a batch has changed since."""

    def __init__(self, database: Database, root: RootSettings) -> None:
        self._database = database
        self._root = root
        self._open: set[bytes] = set()
        self._failed: dict[bytes, tuple[float, str]] = {}  # when to try again (monotonic, seconds), and why
        self._seen_event = 0  # at first every batch is looked at

    def report(self) -> list[bytes]:
        """Write what is due; the batches whose report was written."""
        with self._database.reading() as session:
            newest = session.scalar(sa.select(sa.func.max(JobEvent.id))) or 0
            if newest > self._seen_event:
                self._open |= _moved(session, self._root.key, self._seen_event)
            self._seen_event = newest
        written = []
        for batch in sorted(self._open):  # one after the other: at the start that is every batch there ever was
            if time.monotonic() < self._failed.get(batch, (0.0, ""))[0]:
                continue
            with self._database.reading() as session:
                if _is_under_way(session, self._root.key, batch):
                    continue
                told = batch_report(session, self._root.key, batch)
            told = told or self._of_what_went(batch)
            try:
                if told is not None and self._write(batch, *told):
                    written.append(batch)
            except PhotochromError as error:
                self._try_again(batch, str(error))
                continue
            self._open.discard(batch)
            self._failed.pop(batch, None)
        return written

    def _of_what_went(self, batch: bytes) -> tuple[dict[str, Any], bytes] | None:
        """The report on a batch that was taken away before it had one, as long as its derivatives are there."""
        if self._read(batch, b".json") is not None:
            return None
        with self._database.reading() as session:
            told = batch_report(session, self._root.key, batch, gone=True)
        output = os.fsencode(self._root.output)
        there = told is not None and any(os.path.lexists(absolute(output, path)) for path in parse_manifest(told[1]))
        return told if there else None

    def _try_again(self, batch: bytes, why: str) -> None:
        """The disk, or a foreign file in the way, may be seen to at any time; it is told once."""
        if self._failed.get(batch, (0.0, ""))[1] != why:
            logger.warning("report_not_written", extra={"batch": display(batch), "why": why})
        self._failed[batch] = (time.monotonic() + RETRY_S, why)

    def _write(self, batch: bytes, report: dict[str, Any], checksums: bytes) -> bool:
        """False when both files are there already, and tell at least as much.

        The one that says whose it is comes first: by it the other is known when only one could be written.
        """
        content = (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode()
        text = as_text(report).encode() + checksums
        old, old_text = self._read(batch, b".json"), self._read(batch, b".txt")
        if (old, old_text) == (content, text):
            return False
        ours = {hashlib.sha256(old).hexdigest()} if old is not None and FORMAT.encode() in old else set()
        known = old_text is not None and old_text.startswith(f"Batch {report['batch']}: ".encode())
        if ours and known and _tells_more(old or b"", report):
            return False
        ours_text = {hashlib.sha256(old_text or b"").hexdigest()} if ours and known else set()
        self._publish(batch, b".json", content, ours)
        fault.point("report_half")
        self._publish(batch, b".txt", text, ours_text)
        logger.info("batch_ended", extra={"batch": display(batch), **report["counts"]})
        return True

    def _publish(self, batch: bytes, suffix: bytes, content: bytes, replaces: Collection[str]) -> None:
        # of a watcher that was killed; one that lives and loses its file to us tries again
        remove_left_behind(os.fsencode(self._root.output), batch, job_id="report", claim_no=2)
        with Publication(self._root.output, batch, job_id="report", claim_no=1) as publication:
            with output_errors():
                write_all(publication.fd, content)
            fault.point("report_written")
            names = [batch + b"/" + NAME + suffix]
            publication.commit(publication.plan(names, replaces=replaces), replaces=replaces)

    def _read(self, batch: bytes, suffix: bytes) -> bytes | None:
        """What lies there; None also for what is no file that could be ours."""
        try:
            fd = open_below(os.fsencode(self._root.output), batch + b"/" + NAME + suffix)
            with os.fdopen(fd, "rb") as file:
                return file.read()
        except OSError:
            return None


def _is_under_way(session: Session, root: str, batch: bytes) -> bool:
    """Whether a file of a batch waits or is being worked on."""
    inside = (SourceFile.root == root, _within(batch))
    waiting = sa.select(SourceFile.id).where(*inside, SourceFile.state.in_(_WAITING), ~_is_left_out())
    unfinished = _jobs_of(root, batch).with_only_columns(Job.id).where(Job.state.in_(OPEN))
    return any(session.scalar(query.limit(1)) is not None for query in (waiting, unfinished))


def _is_left_out() -> sa.ColumnElement[bool]:
    """A picture that the manifest of its batch does not list: it waits for a person, and the batch not for it."""
    return sa.and_(SourceFile.state == FileState.BLOCKED, SourceFile.reason.startswith(NOT_LISTED))


def _jobs_of(root: str, batch: bytes) -> sa.Select[Job]:
    return sa.select(Job).join(SourceFile, SourceFile.job_id == Job.id).where(SourceFile.root == root, _within(batch))


def batch_report(
    session: Session, root: str, batch: bytes, *, gone: bool = False
) -> tuple[dict[str, Any], bytes] | None:
    """What became of a batch that has ended, and its derivatives as a manifest; None when none of it is there.

    Args:
        session: a reading session.
        root: name of the root.
        batch: folder right below it.
        gone: report also when all of it was taken away.
    """
    theirs = _jobs_of(root, batch)
    present = theirs if gone else theirs.where(SourceFile.state != FileState.VANISHED)
    jobs = list(session.scalars(present))
    if not jobs:
        return None
    started = min(job.created_at for job in jobs)
    # what went since was of this batch; what went before, of an earlier one in a folder of the same name
    if not gone:
        jobs += session.scalars(theirs.where(SourceFile.state == FileState.VANISHED, Job.finished_at >= started))
    jobs.sort(key=lambda job: job.path)
    finished = max(job.finished_at or job.created_at for job in jobs)
    published = [job for job in jobs if job.state in PUBLISHED]
    extra = sa.select(SourceFile).where(SourceFile.root == root, _within(batch), _is_left_out())
    left_out = session.scalars(extra.order_by(SourceFile.path)).all()
    checksums = b"".join(manifest_line(job.output_path or b"", job.output_sha256 or "") for job in published)
    return {
        "format": FORMAT, "batch": display(batch), "root": root, "files": len(jobs),
        "counts": dict(sorted(Counter(str(job.state) for job in jobs).items())),
        "started_at": _at(started), "finished_at": _at(finished),
        "duration_s": round((finished - started).total_seconds(), 1),
        "models": sorted({job.model_version for job in published if job.model_version}),
        "failures": [
            {"path": job.display_path, "state": job.state, "job": job.id, "reason": job.reason}
            for job in jobs if job.state not in PUBLISHED
        ],
        "not_taken": [{"path": file.display_path, "reason": file.reason} for file in left_out],
        "derivatives": [
            {"source": job.display_path, "source_sha256": job.source_sha256, "state": job.state,
             "derivative": display(job.output_path or b""), "derivative_sha256": job.output_sha256}
            for job in published
        ],
    }, checksums  # fmt: skip


_WAITING: Final = (FileState.SETTLING, FileState.BLOCKED)


def as_text(report: dict[str, Any]) -> str:
    """The report for a person; what `sha256sum --check` reads, seen from the output folder, comes after it."""
    counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in report["counts"].items())
    lines = [
        f"Batch {report['batch']}: {report['files']} files: {counts}.",
        f"From {report['started_at']} to {report['finished_at']}, {report['duration_s']:g} s, "
        f"model {', '.join(report['models']) or 'none'}.",
    ]
    lines += [f"{failure['state']}: {failure['path']}: {failure['reason']}" for failure in report["failures"]]
    lines += [f"not taken: {left['path']}: {left['reason']}" for left in report["not_taken"]]
    return "\n".join(lines) + "\n\n"


def _tells_more(old: bytes, report: dict[str, Any]) -> bool:
    """Whether a report that is there tells all of this and more: originals may be taken away once they are done."""
    try:
        before = json.loads(old)
    except ValueError:
        return False
    parts = ("failures", "not_taken", "derivatives")
    return all(entry in before.get(part, ()) for part in parts for entry in report[part])


def _moved(session: Session, root: str, after_event: int) -> set[bytes]:
    """The folders right below a root in which something became of a job since an event."""
    directories = session.scalars(
        sa.select(SourceFile.directory)
        .join(Job, Job.source_file_id == SourceFile.id)
        .join(JobEvent, JobEvent.job_id == Job.id)
        .where(SourceFile.root == root, JobEvent.id > after_event)
        .distinct()
    )
    return {directory.split(b"/")[0] for directory in directories if directory}


def _within(batch: bytes) -> sa.ColumnElement[bool]:
    """Bytes have no prefix operator that both databases share; they have an order."""
    below = sa.and_(SourceFile.directory >= batch + b"/", SourceFile.directory < batch + b"0")  # "0" follows "/"
    return sa.or_(SourceFile.directory == batch, below)


def _at(time: dt.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
