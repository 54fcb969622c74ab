"""Tables of what makes the generator better by itself: its versions, which of them serves, and who decided so."""

import datetime as dt
import enum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from worker.db import UtcTime, after
from worker.tables import Base, Id, text_enum

CHAMPION: Final = "champion"


class VersionState(enum.StrEnum):
    """What is known of a version's fitness to serve."""

    CANDIDATE = "candidate"  # trained or imported; a person may promote it
    PROMOTED = "promoted"  # has served, or does
    REJECTED = "rejected"  # the gate found it worse


class ModelVersion(Base):
    """One version of the generator: an immutable folder on disk, and what is known of it."""

    __tablename__ = "model_versions"

    version: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    directory: Mapped[str] = mapped_column(sa.Text)  # where it was when it was recorded
    weights_sha256: Mapped[str] = mapped_column(sa.String(64))
    parent: Mapped[str | None] = mapped_column(sa.String(64))
    state: Mapped[VersionState] = mapped_column(text_enum(VersionState))
    created_at: Mapped[dt.datetime] = mapped_column(UtcTime, default=after(0))
    verdict: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)
    problem: Mapped[str] = mapped_column(sa.Text, default="")  # why a worker could not load it, if one could not


class ModelAlias(Base):
    """A name that always points at one version: `champion` is the one that colours new scans."""

    __tablename__ = "model_aliases"

    alias: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    version: Mapped[str] = mapped_column(sa.ForeignKey("model_versions.version"))
    since: Mapped[dt.datetime] = mapped_column(UtcTime, default=after(0))


class ModelEvent(Base):
    """One flip of an alias; written in the same transaction."""

    __tablename__ = "model_events"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(UtcTime, default=after(0))
    alias: Mapped[str] = mapped_column(sa.String(32))
    action: Mapped[str] = mapped_column(sa.String(16))  # promote | rollback
    version: Mapped[str] = mapped_column(sa.String(64))
    previous: Mapped[str | None] = mapped_column(sa.String(64))
    actor: Mapped[str] = mapped_column(sa.Text)  # user@host, or the training run
    reason: Mapped[str] = mapped_column(sa.Text, default="")


class CuratedState(enum.StrEnum):
    """May a colour photo be learned from?"""

    PENDING = "pending"  # waits for its check
    ACCEPTED = "accepted"
    REJECTED = "rejected"  # with a reason


class CuratedPhoto(Base):
    """One colour photo in the curated folder: what it is, and whether the generator may learn from it."""

    __tablename__ = "curated_photos"
    __table_args__ = (sa.Index(None, "state"), sa.Index(None, "sha256"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    source_file_id: Mapped[int] = mapped_column(sa.ForeignKey("source_files.id"), unique=True)
    root: Mapped[str] = mapped_column(sa.Text)
    path: Mapped[bytes]
    display_path: Mapped[str] = mapped_column(sa.Text)
    sha256: Mapped[str] = mapped_column(sa.String(64))
    size_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    state: Mapped[CuratedState] = mapped_column(text_enum(CuratedState), default=CuratedState.PENDING)
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    judged_by: Mapped[str] = mapped_column(sa.Text, default="")  # "check", or user@host
    judged_at: Mapped[dt.datetime | None] = mapped_column(UtcTime)
    created_at: Mapped[dt.datetime] = mapped_column(UtcTime, default=after(0))

    width_px: Mapped[int | None]
    height_px: Mapped[int | None]
    colourfulness: Mapped[float | None]
    perceptual_hash: Mapped[str | None] = mapped_column(sa.String(64))
    duplicate_of: Mapped[int | None] = mapped_column(sa.ForeignKey("curated_photos.id"))
    slice: Mapped[str] = mapped_column(sa.Text, default="")
    licence: Mapped[str] = mapped_column(sa.Text, default="")
    origin: Mapped[str] = mapped_column(sa.Text, default="")
    use: Mapped[str] = mapped_column(sa.String(16), default="")  # "train" | "holdout", from its first run on
    first_run: Mapped[int | None] = mapped_column(sa.BigInteger)  # the training run that used it first

    claim_no: Mapped[int] = mapped_column(default=0)  # only ever rises: fences a worker that was given up
    lost: Mapped[int] = mapped_column(default=0)  # checks that ended with their worker
    lease_until: Mapped[dt.datetime | None] = mapped_column(UtcTime)


class RunState(enum.StrEnum):
    """What became of a training run."""

    RUNNING = "running"  # under way, or interrupted and to be gone on with
    SKIPPED = "skipped"  # there was no reason to train
    PROMOTED = "promoted"
    REJECTED = "rejected"
    NEEDS_APPROVAL = "needs_approval"
    FAILED = "failed"


class TrainingRun(Base):
    """One run of the scheduled retraining, from its frozen manifest to its verdict."""

    __tablename__ = "training_runs"
    __table_args__ = (
        # single-flight, held by the database itself
        sa.Index(
            "uq_training_runs_running",
            "state",
            unique=True,
            sqlite_where=sa.text("state = 'running'"),
            postgresql_where=sa.text("state = 'running'"),
        ),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    state: Mapped[RunState] = mapped_column(text_enum(RunState), default=RunState.RUNNING)
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    trigger: Mapped[str] = mapped_column(sa.String(16))  # now | schedule | detach | resume
    directory: Mapped[str] = mapped_column(sa.Text, default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcTime, default=after(0))
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcTime)

    claim_no: Mapped[int] = mapped_column(default=1)  # rises whenever another process goes on with it
    holder: Mapped[str] = mapped_column(sa.Text, default="")
    lease_until: Mapped[dt.datetime | None] = mapped_column(UtcTime)
    phase: Mapped[str] = mapped_column(sa.String(32), default="")
    fraction: Mapped[float] = mapped_column(default=0.0)
    eta_s: Mapped[float | None]

    parent: Mapped[str | None] = mapped_column(sa.String(64))
    version: Mapped[str | None] = mapped_column(sa.String(64))
    manifest_sha256: Mapped[str | None] = mapped_column(sa.String(64))
    config: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)  # seed, recipe, caps, code, hardware, replay
    verdict: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)
