"""Leases: who holds a row, until when, and how one of a holder that died is known, whatever the clock did since."""

import datetime as dt
import hashlib
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker.db import after
from worker.tables import Root

#: where the length of a lease is a setting, another host may have set one longer, but hardly so many times
LONGER_ELSEWHERE: Final = 10


def is_void(lease_until: Any, longest_s: float) -> sa.ColumnElement[bool]:
    """The lease ran out; or the clock was put back since it was given, and it would not run out for hours.

    Args:
        lease_until: the column.
        longest_s: no lease is given for so long: one that ends later is from before the clock was put back.
    """
    return sa.or_(lease_until < after(0), lease_until > after(longest_s))


def ended_by(now: dt.datetime, lease_until: dt.datetime | None, longest_s: float) -> bool:
    """The same of a value that was read, at the database's time `now`; no lease is one that has ended."""
    return lease_until is None or not now <= lease_until <= now + dt.timedelta(seconds=longest_s)


class WatchedByAnother(Exception):
    """The right to watch a root was lost; nothing that was seen in it may be recorded any more."""


def refuse_another(session: Session, name: str, watcher: str) -> None:
    """Hold on to the right to watch a root until the transaction ends.

    Raises:
        WatchedByAnother: another daemon has it: ours was stopped for longer than it lasts, and what it saw is old.
    """
    ours = sa.update(Root).where(Root.name == name, Root.watcher == watcher).values(watcher=watcher)
    if session.execute(ours).rowcount != 1:  # type: ignore[attr-defined]
        raise WatchedByAnother(f"Another daemon watches {name!r} now.")


def take_turns(session: Session, about: bytes) -> None:
    """Until this transaction ends, another that is about the same waits here, and then sees what this one has written.

    For what no guarded UPDATE of one row can decide, because it looks at other rows. SQLite has one writer at a time.
    """
    if session.get_bind().dialect.name == "postgresql":
        number = int.from_bytes(hashlib.sha256(about).digest()[:8], signed=True)
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.literal(number, sa.BigInteger()))))
