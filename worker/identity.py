"""Is a watched folder the one of the record? What tells it from an empty mount point, and what settles a doubt.

Numbers alone do not: some file systems give a folder another inode at every mount. So a folder that looks like another
one is accepted all the same when the files of the record are in it.
"""

import json
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker.db import Database
from worker.mounts import Mount, same_share
from worker.tables import FileState, Root, RootState, SourceFile, absolute, display

#: so many recorded files are looked for, spread over the record; few enough to ask a slow share for every few seconds
SAMPLE_FILES: Final = 32
#: and this share of them must be there in the recorded size: some may have gone, or been replaced, meanwhile
KNOWN_SHARE: Final = 0.8
#: where the record keeps the folders below a root that file systems are, or were, mounted on
SHARES: Final = "shares"


def another(recorded: Mapping[str, Any], recorded_type: str, now: Mapping[str, Any], now_type: str) -> str:
    """What tells that a folder is not the recorded one, as the beginning of a sentence; empty when it is that one.

    The same folder has, over a remount and a restart, the same share, inode, and place in its file system. Device
    numbers are handed out anew; a real one that is the same does for the place, as a folder above may be renamed.
    """
    if not recorded:  # it was never there yet
        return ""
    was, is_ = _mounts(recorded, recorded_type, now, now_type)
    if not same_share(was, is_):
        told = [f"{display(os.fsencode(mount.source))} ({mount.fs_type})" for mount in (was, is_)]
        return f"It was on {told[0]} and is now on {told[1]}"
    if _differs(recorded, now, "inode") or (_differs(recorded, now, "place") and not _on_one_device(recorded, now)):
        return f"It was the folder {_words(recorded)} and is now {_words(now)}, without the files of the record"
    return ""


def _mounts(
    recorded: Mapping[str, Any], recorded_type: str, now: Mapping[str, Any], now_type: str
) -> tuple[Mount, Mount]:
    return (
        Mount(point="", source=str(recorded.get("source")), fs_type=recorded_type),
        Mount(point="", source=str(now.get("source")), fs_type=now_type),
    )


def _differs(recorded: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    """False also where the record is from a release that did not note it."""
    return name in recorded and name in now and recorded[name] != now[name]


def _on_one_device(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Major 0: numbers of the kernel's own (btrfs, tmpfs, shares), where a neighbour may have the same inode."""
    device = recorded.get("device")
    return device == now.get("device") and device is not None and os.major(device) != 0


def _words(of: Mapping[str, Any]) -> str:
    place, source = (display(os.fsencode(str(of.get(name) or "?"))) for name in ("place", "source"))
    return f"{place} (inode {of.get('inode', '?')}) of {source}"


def is_known_again(database: Database, name: str, path: bytes, now: Mapping[str, Any], now_type: str) -> bool:
    """Whether a folder that is not the recorded one holds its files; no transaction is open while it is looked at.

    Where the record knows no files there is nothing to lose, and another folder of the same share will do.
    """
    with database.reading() as session:
        root = session.get(Root, name)
        if root is None or root.path != path:
            return False
        recorded = json.loads(root.identity)
        if not another(recorded, root.fs_type, now, now_type):
            return False
        known = sample(session, name)
    return holds(path, known) if known else same_share(*_mounts(recorded, root.fs_type, now, now_type))


def is_recorded_here(database: Database, root: Root) -> bool:
    """Whether a worker sees the recorded folder: a share may be mounted on the watcher's host, and not on its own.

    Sources and types are not compared: one host may have the disk that the other mounts from it.
    """
    if root.state is RootState.OFFLINE:
        return False
    inode = json.loads(root.identity).get("inode")
    try:
        if inode is None or os.stat(root.path).st_ino == inode:
            return True
    except OSError:
        return False
    with database.reading() as session:
        known = sample(session, root.name)
    return not known or holds(root.path, known)


def sample(session: Session, root: str) -> Sequence[tuple[bytes, int]]:
    """(path, size in bytes) of recorded files that have not vanished, evenly spread over the record."""
    there = (SourceFile.root == root, SourceFile.state != FileState.VANISHED)
    ids = sa.select(SourceFile.id).where(*there)
    first = session.scalar(ids.order_by(SourceFile.id).limit(1))
    last = session.scalar(ids.order_by(SourceFile.id.desc()).limit(1))
    if first is None or last is None:
        return []
    found: dict[bytes, int] = {}
    for number in range(SAMPLE_FILES):
        at = first + (last - first) * number // max(1, SAMPLE_FILES - 1)
        after = sa.select(SourceFile.path, SourceFile.size_bytes).where(*there, SourceFile.id >= at)
        path, size = session.execute(after.order_by(SourceFile.id).limit(1)).one()
        found[path] = size
    return list(found.items())


def holds(root: bytes, known: Sequence[tuple[bytes, int]]) -> bool:
    """Whether enough of these files are below a folder, in their recorded sizes."""
    return sum(_is_there(absolute(root, path), size) for path, size in known) >= KNOWN_SHARE * len(known)


def _is_there(path: bytes, size_bytes: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size_bytes


def shares_of(session: Session, name: str) -> set[bytes]:
    """The folders below a root that file systems are, or were, mounted on."""
    identity = session.scalar(sa.select(Root.identity).where(Root.name == name))
    return {os.fsencode(share) for share in json.loads(identity or "{}").get(SHARES, [])}


def note_shares(session: Session, name: str, there: Collection[bytes]) -> None:
    """Add to them, in a writing session."""
    root = session.get_one(Root, name, with_for_update=True)
    known = shares_of(session, name) | set(there)
    root.identity = json.dumps({**json.loads(root.identity), SHARES: sorted(map(os.fsdecode, known))}, sort_keys=True)
