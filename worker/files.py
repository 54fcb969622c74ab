"""The record of watched folders and the files in them, before their jobs."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker.db import after
from worker.tables import FileState, Root, RootState, SourceFile, display


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
        # inodes have 64 bits without a sign on some file systems, integers in databases have one
        inode = stat.st_ino - 2**64 if stat.st_ino >= 2**63 else stat.st_ino
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, inode)


def stamp(file: SourceFile) -> Stamp:
    """The stamp that the record holds."""
    return Stamp(file.size_bytes, file.mtime_ns, file.ctime_ns, file.inode)


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
) -> Root | None:
    """Take or renew the right to watch a root; None while another daemon holds it.

    A root whose mount source or file system type is another than the recorded one is marked offline: a share that is
    not mounted shows the empty folder beneath it, and nothing may be concluded from that.
    """
    root = session.get(Root, name)
    if root is None:
        root = Root(name=name, path=path, output=output, mode=mode, fs_type=fs_type, state=RootState.ONLINE,
                    identity=json.dumps(identity, sort_keys=True), files=0)  # fmt: skip
        session.add(root)
        session.flush()
    taken = session.execute(
        sa.update(Root)
        .where(
            Root.name == name,
            sa.or_(Root.watcher.is_(None), Root.watcher == watcher, Root.watcher_until < after(0)),
        )
        .values(watcher=watcher, watcher_until=after(lease_s))
    )
    if taken.rowcount != 1:  # type: ignore[attr-defined]
        return None
    session.refresh(root)
    known = json.loads(root.identity)
    moved = [key for key in ("mount_source", "fs_type") if known.get(key) != identity.get(key)]
    if root.path == path and moved:
        set_root_state(
            session,
            root,
            RootState.OFFLINE,
            f"It was on {known.get('mount_source')} ({known.get('fs_type')}) and is now on "
            f"{identity.get('mount_source')} ({identity.get('fs_type')}). Mount it again; "
            "if the move is meant, give the root a new name in photochrom.toml.",
        )
    else:
        set_root_state(session, root, RootState.ONLINE, "")
        root.identity = json.dumps(identity, sort_keys=True)
        root.path, root.output, root.mode, root.fs_type = path, output, mode, fs_type
    return root


def set_root_state(session: Session, root: Root, state: RootState, reason: str) -> None:
    """Record whether a root is there; its files keep their states."""
    root.state, root.reason = state, reason
    session.flush()


def release_roots(session: Session, watcher: str) -> None:
    """Let another daemon watch our roots at once."""
    session.execute(sa.update(Root).where(Root.watcher == watcher).values(watcher=None, watcher_until=None))


def scanned(session: Session, name: str, *, seconds: float, files: int) -> None:
    """Record a complete look at a root that took so long and saw so many regular files."""
    session.execute(
        sa.update(Root)
        .where(Root.name == name)
        .values(scanned_at=after(0), scan_started_at=after(-seconds), files=files)
    )


def in_directory(session: Session, root: str, directory: bytes) -> dict[bytes, SourceFile]:
    """The recorded files of one directory (not of those below it), by path below the root."""
    rows = session.scalars(sa.select(SourceFile).where(SourceFile.root == root, SourceFile.directory == directory))
    return {row.path: row for row in rows}


def directories(session: Session, root: str) -> Iterator[bytes]:
    """Every directory of a root that has recorded files which have not vanished, page by page."""
    last: bytes | None = None
    while True:
        query = sa.select(SourceFile.directory).where(SourceFile.root == root, SourceFile.state != FileState.VANISHED)
        if last is not None:
            query = query.where(SourceFile.directory > last)
        page = session.scalars(query.distinct().order_by(SourceFile.directory).limit(1000)).all()
        yield from page
        if len(page) < 1000:
            return
        last = page[-1]


def in_states(session: Session, root: str, states: Sequence[FileState], limit: int) -> Sequence[SourceFile]:
    """Recorded files of a root in these states, oldest first."""
    return session.scalars(
        sa.select(SourceFile)
        .where(SourceFile.root == root, SourceFile.state.in_(states))
        .order_by(SourceFile.id)
        .limit(limit)
    ).all()


def found(session: Session, root: str, path: bytes, seen: Stamp) -> SourceFile:
    """A new file: it settles."""
    file = SourceFile(
        root=root,
        directory=os.path.dirname(path),
        path=path,
        display_path=display(path),
        state=FileState.SETTLING,
        reason="It was just found; it must be quiet first.",
        **dataclasses.asdict(seen),
    )
    session.add(file)
    return file


def enter(file: SourceFile, state: FileState, reason: str, seen: Stamp | None = None) -> None:
    """Put a file into a state; `since` tells when it entered it, and stays while only the reason changes."""
    if file.state is not state:
        file.since = after(0)
    file.state, file.reason = state, reason
    if seen is not None:
        for name, value in dataclasses.asdict(seen).items():
            setattr(file, name, value)
