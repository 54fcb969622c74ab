"""The watcher ends when it is asked to, also in the middle of a file that takes minutes to read."""

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
