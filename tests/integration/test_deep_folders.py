"""A path that the record has no room for is blocked, with the reason, and holds up nothing else of its root."""

import os
from pathlib import Path

import sqlalchemy as sa
from rows_made import watched

from daemon.reconcile import Reconciler
from daemon.scan import LONGEST_PATH_BYTES
from worker.db import Database
from worker.tables import FileState, SourceFile


def test_a_path_of_thousands_of_bytes(record: Database, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "z").mkdir(parents=True)
    (root / "z" / "after.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    here, deepest = os.open(root, os.O_RDONLY), b""
    for _ in range(14):  # 3,400 bytes that no database makes smaller
        name = os.urandom(120).hex()
        os.mkdir(name, dir_fd=here)
        deepest = os.path.join(deepest, name.encode())
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("deep.png", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    with record.writing() as session:
        session.merge(watched("r"))
    reconciler = Reconciler(record, "r", bytes(root), 0.0, 3)
    assert reconciler.full_scan(lambda: True) and reconciler.full_scan(lambda: True)
    reconciler.look_at(deepest, deep=True)  # as by an event: what is listened to may lie below
    with record.reading() as session:
        rows = {row.display_path: row for row in session.scalars(sa.select(SourceFile))}
    after, blocked = rows.pop("z/after.png"), *rows.values()
    assert after.state is not FileState.BLOCKED
    assert blocked.state is FileState.BLOCKED and len(blocked.path) > LONGEST_PATH_BYTES
    assert f"{LONGEST_PATH_BYTES} are allowed" in blocked.reason
