"""The tables and views. Paths are kept as bytes, with a display form: text columns cannot hold every file name."""

import datetime as dt
import enum
import os
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from worker.db import UtcTime, after

#: SQLite gives row numbers to INTEGER primary keys only
Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class JobState(enum.StrEnum):
    """What became of a job."""

    QUEUED = "queued"  # waits for a worker, or for `not_before`
    RUNNING = "running"  # a worker holds a lease on it
    DONE = "done"  # the derivative is published
    NEEDS_REVIEW = "needs_review"  # published, and a person should look at it
    DUPLICATE = "duplicate"  # published as a copy of another job's derivative
    SKIPPED = "skipped"  # left alone on purpose, for a named reason
    QUARANTINED = "quarantined"  # gave up, with the evidence in the row
    SUPERSEDED = "superseded"  # the scan has new content, and a job for it


class FileState(enum.StrEnum):
    """Where a file in a watched folder stands before its job."""

    SETTLING = "settling"  # may still be written to
    BLOCKED = "blocked"  # settled, and cannot be read
    IGNORED = "ignored"  # seen, and no picture
    VANISHED = "vanished"  # was here, and is gone
    SUBMITTED = "submitted"  # its job says the rest


class RootState(enum.StrEnum):
    """Is the watched folder there?"""

    ONLINE = "online"
    OFFLINE = "offline"  # gone, unmounted or another one: no work, no deletions


def text_enum(kind: type[enum.StrEnum]) -> sa.Enum:
    """VARCHAR with a CHECK: readable in every tool, and a wrong value is refused by the database."""
    return sa.Enum(
        kind,
        name=kind.__name__.lower(),
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """All tables; constraints get names, so that migrations can speak of them."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Root(Base):
    """One watched folder: where it is, which file system it was, who watches it."""

    __tablename__ = "roots"

    name: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    path: Mapped[bytes]
    output: Mapped[bytes]
    mode: Mapped[str] = mapped_column(sa.String(16))  # events | scan
    fs_type: Mapped[str] = mapped_column(sa.String(64))
    state: Mapped[RootState] = mapped_column(text_enum(RootState))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    identity: Mapped[str] = mapped_column(sa.Text)  # device, inode, mount source, and what goes with them, as JSON
    files: Mapped[int] = mapped_column(sa.BigInteger, default=0)  # regular files seen by the last complete scan
    scanned_at: Mapped[dt.datetime | None] = mapped_column(UtcTime)  # end of the last complete scan
    scan_started_at: Mapped[dt.datetime | None] = mapped_column(UtcTime)  # start of that scan
    watcher: Mapped[str | None] = mapped_column(sa.Text)  # which daemon watches it
    watcher_until: Mapped[dt.datetime | None] = mapped_column(UtcTime)


class SourceFile(Base):
    """One file in a watched folder, by root and path."""

    __tablename__ = "source_files"
    __table_args__ = (
        sa.UniqueConstraint("root", "path"),
        sa.Index(None, "root", "directory"),
        sa.Index(None, "root", "id"),  # a sample of a root's files
        sa.Index(None, "state"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    root: Mapped[str] = mapped_column(sa.Text)
    directory: Mapped[bytes]  # below the root, "" for the root itself
    path: Mapped[bytes]  # below the root
    display_path: Mapped[str] = mapped_column(sa.Text)
    state: Mapped[FileState] = mapped_column(text_enum(FileState))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    since: Mapped[dt.datetime] = mapped_column(UtcTime, default=after(0))
    size_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    mtime_ns: Mapped[int] = mapped_column(sa.BigInteger)
    ctime_ns: Mapped[int] = mapped_column(sa.BigInteger)
    inode: Mapped[int] = mapped_column(sa.BigInteger)
    sha256: Mapped[str | None] = mapped_column(sa.String(64))
    job_id: Mapped[int | None] = mapped_column(sa.BigInteger)


class Job(Base):
    """One file under one model version and one set of parameters."""

    __tablename__ = "jobs"
    __table_args__ = (
        # one live job per file and variant: a second submit of the same content is a no-op
        sa.Index(
            "uq_jobs_live",
            "source_file_id",
            "variant",
            unique=True,
            sqlite_where=sa.text("state <> 'superseded'"),
            postgresql_where=sa.text("state <> 'superseded'"),
        ),
        sa.Index(None, "source_sha256", "state", "variant", "id"),  # twins
        sa.Index(None, "output_path"),  # whose derivative is this? The root is left out: keys have a longest size
        sa.Index(None, "state", "id"),  # lists, a page at a time
        sa.Index(None, "state", "root", "priority", "id"),  # what is next
        sa.Index(None, "state", "dispatched_at"),  # what is in flight
        sa.Index(None, "state", "finished_at"),  # what ended since
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    source_file_id: Mapped[int] = mapped_column(sa.ForeignKey("source_files.id"))
    root: Mapped[str] = mapped_column(sa.Text)
    path: Mapped[bytes]
    display_path: Mapped[str] = mapped_column(sa.Text)
    source_sha256: Mapped[str] = mapped_column(sa.String(64))
    size_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    variant: Mapped[str] = mapped_column(sa.Text, default="")  # "" = the folder's own derivative, else `recolor`'s
    parameters: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)
    priority: Mapped[int] = mapped_column(default=3)  # Celery on Redis: 0 first, 9 last

    state: Mapped[JobState] = mapped_column(text_enum(JobState), default=JobState.QUEUED)
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    claim_no: Mapped[int] = mapped_column(default=0)  # only ever rises: the fencing token
    failures: Mapped[int] = mapped_column(default=0)  # strikes for errors
    lost: Mapped[int] = mapped_column(default=0)  # strikes for workers that died; counted before the work
    not_before: Mapped[dt.datetime | None] = mapped_column(UtcTime)
    dispatched_at: Mapped[dt.datetime | None] = mapped_column(UtcTime)
    lease_until: Mapped[dt.datetime | None] = mapped_column(UtcTime)
    worker: Mapped[str | None] = mapped_column(sa.Text)
    device: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[dt.datetime] = mapped_column(UtcTime, default=after(0))
    started_at: Mapped[dt.datetime | None] = mapped_column(UtcTime)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcTime)

    error_class: Mapped[str | None] = mapped_column(sa.Text)
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    traceback_tail: Mapped[str | None] = mapped_column(sa.Text)
    host: Mapped[str | None] = mapped_column(sa.Text)

    model_version: Mapped[str | None] = mapped_column(sa.Text)
    duplicate_of: Mapped[int | None] = mapped_column(sa.ForeignKey("jobs.id"))
    output_path: Mapped[bytes | None]
    display_output_path: Mapped[str | None] = mapped_column(sa.Text)
    output_sha256: Mapped[str | None] = mapped_column(sa.String(64))
    pixels_sha256: Mapped[str | None] = mapped_column(sa.String(64))
    report: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)  # size, depth, class, ΔL*, chroma, warnings


class JobEvent(Base):
    """One move of a job; written in the same transaction. Of many waits for the same thing the first and last stay."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    job_id: Mapped[int] = mapped_column(sa.ForeignKey("jobs.id"), index=True)
    at: Mapped[dt.datetime] = mapped_column(UtcTime, default=after(0))
    state: Mapped[JobState] = mapped_column(text_enum(JobState))
    claim_no: Mapped[int]
    worker: Mapped[str | None] = mapped_column(sa.Text)
    note: Mapped[str] = mapped_column(sa.Text, default="")


#: the view for whoever asks the database; its columns are an interface and only ever grow
# fmt: off
JOB_STATUS = sa.table(
    "job_status",
    *(
        sa.column(name)
        for name in (
            "id",
            "state",
            "reason",
            "root",
            "path",
            "output_path",
            "source_sha256",
            "output_sha256",
            "pixels_sha256",
            "model_version",
            "variant",
            "attempts",
            "failures",
            "lost",
            "worker",
            "device",
            "host",
            "error_class",
            "error_message",
            "duplicate_of",
            "size_bytes",
        )
    ),
    *(sa.column(name, UtcTime()) for name in ("not_before", "created_at", "started_at", "finished_at")),
)
# fmt: on


def display(path: bytes) -> str:
    r"""A file name for people and JSON: UTF-8 where it is, `\xNN` for bytes that are none, `\n` for line ends.

    A backslash in the name is doubled, and characters that do not print are written `\uNNNN`, so that two names never
    look alike.
    """
    text = path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    # \x80 to \xff are bytes that are no UTF-8: characters of these numbers (a no-break space) must not look like them
    return f"\\u{ord(char):04x}" if 0x80 <= ord(char) <= 0xFF else char.encode("unicode_escape").decode()


def absolute(root: bytes, path: bytes) -> bytes:
    """A path below a root, as bytes."""
    return os.path.join(root, path)
