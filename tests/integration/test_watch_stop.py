"""A file that takes minutes to read: the watcher ends all the same when it is asked to, and other roots do not wait."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from installation import Installation, wait_for

from worker.db import migrate, open_database
from worker.tables import FileState, SourceFile

#: of a file with a hole; nobody reads and hashes that in the time that the test gives the watcher
SIZE_BYTES = 200 << 30


def has_open(pid: int, path: Path) -> bool:
    folder = Path(f"/proc/{pid}/fd")
    try:
        return any(os.path.samefile(link, path) for link in folder.iterdir() if os.path.exists(link))
    except OSError:
        return False


def test_a_stop_does_not_wait_for_a_long_hash(tmp_path: Path) -> None:
    where = Installation(tmp_path)
    for folder in (where.inbox, where.output, where.state_dir):
        folder.mkdir()
    url = f"sqlite:///{where.state_dir / 'photochrom.db'}"
    migrate(url)
    large = where.inbox / "large.tif"
    with large.open("wb") as file:
        file.truncate(SIZE_BYTES)
    environ = where.environ | {"PHOTOCHROM_INBOX": str(where.inbox), "PHOTOCHROM_OUTPUT": str(where.output)}
    with (tmp_path / "log").open("wb") as log:
        watch = subprocess.Popen(where.command("watch"), env=environ, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_for(lambda: has_open(watch.pid, large), 60, "the file is being hashed")
        asked_s = time.monotonic()
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(60) == 0, (tmp_path / "log").read_text()
        assert time.monotonic() - asked_s < 30
    finally:
        watch.kill()
        watch.wait()
    database = open_database(url)
    with database.reading() as session:
        (row,) = session.query(SourceFile).all()
    assert (row.state, row.sha256) == (FileState.SETTLING, None)
    assert "next start" in row.reason or "just found" in row.reason
    database.dispose()


def test_a_long_hash_holds_up_no_other_root(tmp_path: Path) -> None:
    where = Installation(tmp_path)
    roots = [{"path": str(tmp_path / name), "output": str(tmp_path / f"out {name}"), "name": name} for name in "ab"]
    for folder in (tmp_path / "a", tmp_path / "b", where.state_dir):
        folder.mkdir()
    url = f"sqlite:///{where.state_dir / 'photochrom.db'}"
    migrate(url)
    large = tmp_path / "a" / "large.tif"
    with large.open("wb") as file:
        file.truncate(SIZE_BYTES)
    environ = where.environ | {"PHOTOCHROM_ROOTS": json.dumps(roots)}
    database = open_database(url)

    def taken(name: str) -> bool:
        with database.reading() as session:
            return any(row.state is FileState.SUBMITTED for row in session.query(SourceFile).filter_by(root=name))

    with (tmp_path / "log").open("wb") as log:
        watch = subprocess.Popen(where.command("watch"), env=environ, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_for(lambda: has_open(watch.pid, large), 60, "the file is being hashed")
        (tmp_path / "b" / "small.tif").write_bytes(b"II*\0")
        wait_for(lambda: taken("b"), 60, "the other root's scan is taken")
        assert has_open(watch.pid, large) and not taken("a"), "it was not long enough"
    finally:
        watch.kill()
        watch.wait()
    database.dispose()
