"""Are originals and derivatives still what the record says? Every byte is read again; nothing is written."""

import dataclasses
import os
from collections.abc import Iterator
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker.answers import NoAnswer, ask
from worker.db import Database
from worker.errors import PhotochromError
from worker.identity import is_recorded_here
from worker.jobs import PUBLISHED
from worker.originals import open_original
from worker.publish import sha256_of
from worker.tables import FileState, Job, JobState, Root, SourceFile, absolute, display

PAGE: int = 500
#: so many derivatives are looked for where one is missing
SAMPLE: Final = 32
#: the reasons of a scan that has vanished and that a person has let go, without its derivative and with it
LET_GO: Final = "A person has said that it was taken away on purpose."
LET_GO_BOTH: Final = "A person has said that it and its derivative were taken away on purpose."


@dataclasses.dataclass(frozen=True)
class Checked:
    """One file, looked at again.

    Attributes:
        job_id: whose original or derivative it is.
        what: `original` or `derivative`.
        path: absolute, as bytes.
        verdict: `ok`, `changed`, `missing` or `unreadable`; `offline` where its whole folder is away; `let go` where
            it is missing, and a person has said that it was taken away on purpose.
        folder: the watched folder or the output folder that it lies in.
        sha256: of what is there now; empty when it cannot be read.
        again: whether it is a derivative that is missing, and its original is there to make it again from.
    """

    job_id: int
    what: str
    path: bytes
    verdict: str
    folder: bytes
    sha256: str = ""
    again: bool = False

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return dataclasses.asdict(self) | {"path": display(self.path), "folder": display(self.folder)}


def check_all(database: Database) -> Iterator[Checked]:
    """Look at every recorded original, and at every derivative that is published and not superseded.

    Page by page and outside of any transaction: hours of reading must not hold the database.
    """
    last, away = 0, dict[tuple[str, str], bool]()
    while True:
        with database.reading() as session:
            roots = {root.name: root for root in session.scalars(sa.select(Root))}
            page = session.execute(
                sa.select(Job, SourceFile.job_id, SourceFile.state, SourceFile.reason)
                .join(SourceFile, SourceFile.id == Job.source_file_id)
                .where(Job.id > last, Job.state != JobState.SUPERSEDED)
                .order_by(Job.id)
                .limit(PAGE)
            ).all()
        for job, current, state, reason in page:
            gone = reason if state is FileState.VANISHED else ""
            root = roots.get(job.root)
            if root is None:
                continue
            if job.id == current:  # a re-run's original is that of the folder's own job
                yield _let_go(_original(database, root, job, away), gone in {LET_GO, LET_GO_BOTH})
            if job.state in PUBLISHED and job.output_path is not None and job.output_sha256 is not None:
                yield _let_go(_derivative(database, root, job, away), gone == LET_GO_BOTH)
        if len(page) < PAGE:
            return
        last = page[-1][0].id


def _let_go(checked: Checked, meant: bool) -> Checked:
    """What is missing is not missed any more where that is meant."""
    return dataclasses.replace(checked, verdict="let go") if meant and checked.verdict == "missing" else checked


def _original(database: Database, root: Root, job: Job, away: dict[tuple[str, str], bool]) -> Checked:
    """The look at an original; where the whole root is away, nothing is said about the file."""
    if not _is_away(away, (root.name, "original"), root.path):
        checked = _checked(job.id, "original", root.path, job.path, job.source_sha256)
        if checked.verdict == "ok" or is_recorded_here(database, root):
            return checked
        away[root.name, "original"] = True
    return Checked(job.id, "original", absolute(root.path, job.path), "offline", root.path)


def _derivative(database: Database, root: Root, job: Job, away: dict[tuple[str, str], bool]) -> Checked:
    """The same of a derivative; the first that is missing tells whether all are, and is asked but once."""
    path, recorded = job.output_path or b"", job.output_sha256 or ""
    key = (root.name, "derivative")
    if not _is_away(away, key, root.output):
        checked = _checked(job.id, "derivative", root.output, path, recorded)
        if checked.verdict != "missing":
            away[key] = False  # here is one that is there
            return checked
        if key not in away:
            away[key] = _is_output_away(database, root)
        if not away[key]:
            unknown = away.get((root.name, "original"), False)  # an original that cannot be looked at is not gone
            return dataclasses.replace(checked, again=unknown or _is_there(root.path, job.path))
    return Checked(job.id, "derivative", absolute(root.output, path), "offline", root.output)


def _is_away(away: dict[tuple[str, str], bool], key: tuple[str, str], folder: bytes) -> bool:
    """Whether a folder is known to be away; where nothing is known yet, whether its share does not answer."""
    if key not in away:
        try:
            ask(folder, partial(os.path.isdir, folder))
        except NoAnswer:
            away[key] = True
    return away.get(key, False)


def _is_there(folder: bytes, path: bytes) -> bool:
    """Whether an original is there, as far as its share tells."""
    try:
        return not ask(folder, partial(_is_missing, absolute(folder, path)))
    except NoAnswer:
        return True


def _is_output_away(database: Database, root: Root) -> bool:
    """Whether an output folder is not there, or has none of the derivatives that were published in it."""
    if not os.path.isdir(root.output):
        return True
    with database.reading() as session:
        paths = _some_published(session, root.name)
    return len(paths) > 1 and not any(os.path.lexists(absolute(root.output, path)) for path in paths)


def _some_published(session: Session, root: str) -> set[bytes]:
    """Paths of recorded derivatives, evenly spread over the record."""
    theirs = sa.select(Job.output_path).where(
        Job.root == root, Job.state.in_(PUBLISHED), Job.output_sha256.is_not(None)
    )
    last = session.scalar(sa.select(sa.func.max(Job.id))) or 0
    spread = (theirs.where(Job.id > last * number // SAMPLE).order_by(Job.id).limit(1) for number in range(SAMPLE))
    return {path for query in spread if (path := session.scalar(query)) is not None}


def _checked(job_id: int, what: str, folder: bytes, path: bytes, recorded: str) -> Checked:
    full = absolute(folder, path)
    try:
        with open_original(folder, path) as fd:
            found = sha256_of(fd)
    except (PhotochromError, OSError):
        return Checked(job_id, what, full, "missing" if _is_missing(full) else "unreadable", folder)
    return Checked(job_id, what, full, "ok" if found == recorded else "changed", folder, found)


def _is_missing(path: bytes) -> bool:
    """Whether nothing is there, as far as the system lets us see: a folder that cannot be searched tells nothing."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def manifest_line(path: bytes, sha256: str) -> bytes:
    r"""One line as sha256sum(1) writes and reads it: a name with a line end or backslash is escaped, and `\` leads."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"" if escaped == path else b"\\") + sha256.encode() + b"  " + escaped + b"\n"
