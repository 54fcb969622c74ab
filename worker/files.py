"""The record of watched folders and the files in them, before their jobs."""

import dataclasses
import datetime as dt
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker import identity as identities
from worker import leases
from worker.db import after
from worker.tables import FileState, Root, RootState, SourceFile, display

PAGE: Final = 1000
#: a right to watch a root that is not renewed for so long is void
ROOT_LEASE_S: Final = 20.0
#: where the record keeps the identity of a folder that was not taken for the recorded one
_REFUSED: Final = "refused"


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What tells that a file was touched: size, both times in nanoseconds, inode."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> "Stamp":
        """The stamp of a `stat` result."""
        return cls(stat.st_size, *map(_signed, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)))


def _signed(number: int) -> int:
    """Integers in databases have 64 bits with a sign; inodes may have none, and times reach beyond the year 2262."""
    return (number + 2**63) % 2**64 - 2**63


class Known(NamedTuple):
    """What the record says of a file, as far as a scan needs it."""

    id: int
    state: FileState
    stamp: Stamp


def watch_root(
    session: Session,
    *,
    name: str,
    path: bytes,
    output: bytes,
    mode: str,
    fs_type: str,
    identity: Mapping[str, object],
    watcher: str,
    lease_s: float,
    trouble: str = "",
    known_again: bool = False,
) -> Root | None:
    """Take or renew the right to watch a root; None while another daemon holds it.

    A root that is another folder than the recorded one is marked offline: a share that is not mounted shows the empty
    folder beneath it, and nothing may be concluded from that. With `known_again` (the files of the record were found
    in it) it is recorded as the folder from now on.
    """
    root = session.get(Root, name)
    if root is None:
        root = Root(name=name, path=path, output=output, mode=mode, fs_type=fs_type, state=RootState.ONLINE,
                    identity=json.dumps(identity, sort_keys=True), files=0)  # fmt: skip
        session.add(root)
        session.flush()
    taken = session.execute(
        sa.update(Root)
        .where(Root.name == name, _is_free_for(watcher, lease_s))
        .values(watcher=watcher, watcher_until=after(lease_s))
    )
    if taken.rowcount != 1:  # type: ignore[attr-defined]
        return None
    session.refresh(root)
    recorded = json.loads(root.identity)
    another = identities.another(recorded, root.fs_type, identity, fs_type)
    if root.path == path and another and not known_again:
        recorded[_REFUSED] = {**identity, "fs_type": fs_type}
        root.identity = json.dumps(recorded, sort_keys=True)
        root.state = RootState.OFFLINE
        root.reason = (
            f"{another}. Mount it again or put it back; if this folder is meant, run "
            f"`photochrom roots accept {shlex.quote(name)}`."
        )
    else:
        kept = {identities.SHARES: recorded[identities.SHARES]} if identities.SHARES in recorded else {}
        root.state, root.reason, root.identity = (
            RootState.ONLINE,
            trouble,
            json.dumps({**identity, **kept}, sort_keys=True),
        )
        root.path, root.output, root.mode, root.fs_type = path, output, mode, fs_type
    return root


def _is_free_for(watcher: str, lease_s: float) -> sa.ColumnElement[bool]:
    """Whether a daemon may watch a root: no other one does, or its right is void."""
    void = leases.is_void(Root.watcher_until, leases.LONGER_ELSEWHERE * lease_s)
    return sa.or_(Root.watcher.is_(None), Root.watcher == watcher, void)


def is_watched(root: Root, now: dt.datetime) -> bool:
    """Whether a daemon has the right to watch a root at a time of the database's clock."""
    over = leases.ended_by(now, root.watcher_until, leases.LONGER_ELSEWHERE * ROOT_LEASE_S)
    return root.watcher is not None and not over


def accept_root(session: Session, name: str) -> bool:
    """Make the folder that was refused last the one of the record; False when none was refused."""
    root = session.get_one(Root, name)
    refused = json.loads(root.identity).get(_REFUSED)
    if refused is None or root.state is not RootState.OFFLINE:
        return False
    root.fs_type = refused.pop("fs_type")
    root.identity = json.dumps(refused, sort_keys=True)
    root.reason = "It was accepted as it is now; the watcher takes it up within seconds."
    return True


def release_roots(session: Session, watcher: str) -> None:
    """Let another daemon watch at once what one held whose name begins so."""
    ours = Root.watcher.startswith(watcher, autoescape=True)
    session.execute(sa.update(Root).where(ours).values(watcher=None, watcher_until=None))


def scanned(session: Session, name: str, *, seconds: float, files: int) -> None:
    """Record a complete look at a root that took so long and saw so many regular files."""
    session.execute(
        sa.update(Root)
        .where(Root.name == name)
        .values(scanned_at=after(0), scan_started_at=after(-seconds), files=files)
    )


def in_directory(session: Session, root: str, directory: bytes) -> dict[bytes, Known]:
    """The recorded files of one directory (not of those below it), by path below the root."""
    f = SourceFile
    rows = session.execute(
        sa.select(f.path, f.id, f.state, f.size_bytes, f.mtime_ns, f.ctime_ns, f.inode).where(
            f.root == root, f.directory == directory
        )
    )
    return {path: Known(file_id, state, Stamp(*stamp)) for path, file_id, state, *stamp in rows}


def directories(session: Session, root: str, last: bytes | None = None) -> dict[bytes, bool]:
    """A page of the directories of a root that have recorded files which have not vanished, in order.

    Args:
        session: a reading session.
        root: its name.
        last: of the page before; None for the first.

    Returns:
        Whether files in it still wait to be taken, by directory.
    """
    waits = sa.func.max(sa.case((SourceFile.state.in_((FileState.SETTLING, FileState.BLOCKED)), 1), else_=0))
    query = sa.select(SourceFile.directory, waits).where(
        SourceFile.root == root, SourceFile.state != FileState.VANISHED
    )
    if last is not None:
        query = query.where(SourceFile.directory > last)
    page = session.execute(query.group_by(SourceFile.directory).order_by(SourceFile.directory).limit(PAGE))
    return {directory: bool(waiting) for directory, waiting in page}


def found(session: Session, root: str, path: bytes, seen: Stamp) -> None:
    """Record a new file: it settles."""
    session.add(
        SourceFile(
            root=root,
            directory=os.path.dirname(path),
            path=path,
            display_path=display(path),
            state=FileState.SETTLING,
            reason="It was just found; it must be quiet first.",
            **dataclasses.asdict(seen),
        )
    )


def block(session: Session, root: str, path: bytes, reason: str) -> None:
    """Record something that cannot be looked at, a folder perhaps, so that it is counted and can be asked for."""
    row = by_path(session, root, path)
    if row is None:
        found(session, root, path, Stamp(0, 0, 0, 0))
        session.flush()
        row = by_path(session, root, path)
    if row is not None and (row.state, row.reason) != (FileState.BLOCKED, reason):
        put(session, row.id, FileState.BLOCKED, reason)


def unblock(session: Session, root: str, folder: bytes) -> None:
    """Forget that a folder could not be listed; the row of a file that had its name stays."""
    row = by_path(session, root, folder)
    if row is None or row.state is not FileState.BLOCKED:
        return
    if row.sha256 is None and row.job_id is None:
        session.delete(row)
    else:
        put(session, row.id, FileState.VANISHED, "A folder has its name now.")


def by_path(session: Session, root: str, path: bytes) -> SourceFile | None:
    """The record of one file."""
    return session.scalars(sa.select(SourceFile).where(SourceFile.root == root, SourceFile.path == path)).one_or_none()


def put(
    session: Session, file_id: int, state: FileState, reason: str, seen: Stamp | None = None, **fields: Any
) -> None:
    """Put a file into a state; `since` tells when it entered it, and stays while only the reason changes.

    Args:
        session: a writing session.
        file_id: the file's row.
        state: the new state.
        reason: one sentence.
        seen: the stamp to record, if it is to change.
        fields: further columns (`sha256`, `job_id`).
    """
    if seen is not None:
        fields |= dataclasses.asdict(seen)
    since = sa.case((SourceFile.state == state, SourceFile.since), else_=after(0))
    session.execute(
        sa.update(SourceFile)
        .where(SourceFile.id == file_id)
        .values(state=state, reason=reason, since=since, **fields)
        .execution_options(synchronize_session=False)
    )


def read_again(session: Session, file_id: int) -> None:
    """Let the watcher take a file anew whose bytes are not those of the record, however untouched it looks."""
    if session.get_one(SourceFile, file_id).state is FileState.SUBMITTED:
        put(session, file_id, FileState.SETTLING, "Its bytes are not those that were recorded; it is read again.")


def let_go(session: Session, file: Known, pattern: str | None) -> None:
    """Record that a file is gone; or, with the pattern by which, that it is to be left alone."""
    if pattern is None:
        put(session, file.id, FileState.VANISHED, "It is no longer in the folder.")
    else:
        seen = dataclasses.replace(file.stamp, inode=0)  # a file that is new to us once the pattern is gone
        put(session, file.id, FileState.IGNORED, f"It is left alone by the pattern {pattern}.", seen)


def put_by_path(session: Session, root: str, state: FileState, outcomes: Sequence[tuple[bytes, str, Stamp]]) -> None:
    """The same for many files at once, by (path, reason, stamp): thousands a second."""
    table = cast("sa.Table", SourceFile.__table__)
    rows = [
        {"b_path": path, "b_reason": reason, **{f"b_{name}": at for name, at in dataclasses.asdict(stamp).items()}}
        for path, reason, stamp in outcomes
    ]
    stat: dict[str, Any] = {field.name: sa.bindparam(f"b_{field.name}") for field in dataclasses.fields(Stamp)}
    since = sa.case((table.c.state == state, table.c.since), else_=after(0))
    # most of what waits for its box is as it was: a look costs less than a write, and holds up nobody
    values = {"state": sa.literal(state), "reason": sa.bindparam("b_reason"), **stat}
    differs = sa.or_(*(table.c[name] != value for name, value in values.items()))
    query = sa.update(table).where(table.c.root == root, table.c.path == sa.bindparam("b_path"), differs)
    session.connection().execute(query.values(state=state, since=since, reason=sa.bindparam("b_reason"), **stat), rows)


def set_offline(session: Session, name: str, reason: str) -> None:
    """Record that a root is not there; its files keep their states."""
    session.execute(sa.update(Root).where(Root.name == name).values(state=RootState.OFFLINE, reason=reason))


def root_missing(session: Session, root: Root, *, watcher: str, lease_s: float) -> None:
    """The same of a root that a daemon does not see, unless another daemon sees and watches it.

    Args:
        session: a writing session.
        root: what is known of it without a look, for one that was never there yet; its reason says what is wrong.
        watcher: the daemon's name.
        lease_s: how long its right to watch a root lasts.
    """
    known = session.get(Root, root.name)
    if known is None:
        root.state, root.identity, root.fs_type, root.files = RootState.OFFLINE, json.dumps({}), "", 0
        session.add(root)
    elif session.scalar(sa.select(Root.name).where(Root.name == root.name, _is_free_for(watcher, lease_s))):
        set_offline(session, root.name, root.reason)
