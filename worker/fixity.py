"""Are originals and derivatives still what the record says? Every byte is read again; nothing is written."""

import dataclasses
import os
from collections.abc import Iterator

import sqlalchemy as sa

from worker.db import Database
from worker.errors import PhotochromError
from worker.identity import is_recorded_here
from worker.jobs import PUBLISHED
from worker.originals import open_original
from worker.publish import sha256_of
from worker.tables import Job, JobState, Root, SourceFile, absolute, display

PAGE: int = 500


@dataclasses.dataclass(frozen=True)
class Checked:
    """One file, looked at again.

    Attributes:
        job_id: whose original or derivative it is.
        what: `original` or `derivative`; `folder` for a root that is offline, once, with the job that told.
        path: absolute, as bytes.
        verdict: `ok`, `changed`, `missing` or `unreadable`; `offline` for an original whose root is not there.
        sha256: of what is there now; empty when it cannot be read.
    """

    job_id: int
    what: str
    path: bytes
    verdict: str
    sha256: str = ""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return dataclasses.asdict(self) | {"path": display(self.path)}


def check_all(database: Database) -> Iterator[Checked]:
    """Look at every recorded original, and at every derivative that is published and not superseded.

    Page by page and outside of any transaction: hours of reading must not hold the database.
    """
    last, away = 0, set[str]()
    while True:
        with database.reading() as session:
            roots = {root.name: root for root in session.scalars(sa.select(Root))}
            page = session.scalars(
                sa.select(Job).where(Job.id > last, Job.state != JobState.SUPERSEDED).order_by(Job.id).limit(PAGE)
            ).all()
            current = {
                row.job_id
                for row in session.scalars(sa.select(SourceFile).where(SourceFile.job_id.in_([job.id for job in page])))
            }
        for job in page:
            root = roots.get(job.root)
            if root is None:
                continue
            if job.id in current:  # a re-run's original is that of the folder's own job
                yield from _original(database, root, job, away)
            if job.state in PUBLISHED and job.output_path is not None and job.output_sha256 is not None:
                yield _checked(job.id, "derivative", root.output, job.output_path, job.output_sha256)
        if len(page) < PAGE:
            return
        last = page[-1].id


def _original(database: Database, root: Root, job: Job, away: set[str]) -> Iterator[Checked]:
    """The look at an original; where the whole root is away, nothing is said about the file."""
    if root.name not in away:
        checked = _checked(job.id, "original", root.path, job.path, job.source_sha256)
        if checked.verdict == "ok" or is_recorded_here(database, root):
            yield checked
            return
        away.add(root.name)
        yield Checked(job.id, "folder", root.path, "offline")
    yield Checked(job.id, "original", absolute(root.path, job.path), "offline")


def _checked(job_id: int, what: str, folder: bytes, path: bytes, recorded: str) -> Checked:
    full = absolute(folder, path)
    try:
        with open_original(folder, path) as fd:
            found = sha256_of(fd)
    except (PhotochromError, OSError):
        return Checked(job_id, what, full, "unreadable" if os.path.lexists(full) else "missing")
    return Checked(job_id, what, full, "ok" if found == recorded else "changed", found)


def manifest_line(checked: Checked) -> bytes:
    r"""One line as sha256sum(1) writes and reads it: a name with a line end or backslash is escaped, and `\` leads."""
    if b"\n" in checked.path or b"\\" in checked.path:
        escaped = checked.path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
        return b"\\" + checked.sha256.encode() + b"  " + escaped + b"\n"
    return checked.sha256.encode() + b"  " + checked.path + b"\n"
