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
