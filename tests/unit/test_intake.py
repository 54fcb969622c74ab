"""Taking a settled file: hashed once while nothing about it changes, or not taken, for a named reason."""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from daemon import intake
from daemon.intake import NotTaken, Taken
from worker.files import Stamp
from worker.tables import FileState

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def _take(path: Path, quiet: Stamp | None = None) -> Taken | NotTaken:
    return intake.take(bytes(path.parent), os.fsencode(path.name), quiet or Stamp.of(path.lstat()))


def _not_taken(outcome: Taken | NotTaken) -> NotTaken:
    assert isinstance(outcome, NotTaken)
    return outcome


def _file(path: Path, content: bytes = PNG) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 1, intake.BLOCK_BYTES - 1, intake.BLOCK_BYTES, 2 * intake.BLOCK_BYTES + 1])
def test_a_quiet_file_is_hashed_and_not_touched(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    file = _file(tmp_path / "a.tif", content)
    os.utime(file, ns=(1, 1))
    file.chmod(0o444)
    before = file.stat()
    assert _take(file) == Taken(hashlib.sha256(content).hexdigest(), Stamp.of(before))
    after = file.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_mode) == (
        before.st_mtime_ns, before.st_ctime_ns, before.st_mode,
    )  # fmt: skip


def test_a_file_that_looks_different_settles_on(tmp_path: Path) -> None:
    file = _file(tmp_path / "a.tif")
    outcome = _not_taken(_take(file, Stamp(1, 2, 3, 4)))
    assert (outcome.state, outcome.stamp) == (FileState.SETTLING, Stamp.of(file.stat()))


def test_a_file_that_changes_while_it_is_read_settles_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(tmp_path / "a.tif")
    read = os.pread

    def write_meanwhile(fd: int, count: int, offset: int) -> bytes:
        block = read(fd, count, offset)
        if offset == 0:
            with file.open("ab") as stream:
                stream.write(b"more")
        return block

    monkeypatch.setattr(os, "pread", write_meanwhile)
    outcome = _not_taken(_take(file))
    assert (outcome.state, outcome.reason) == (FileState.SETTLING, "It changed while it was read.")
    assert outcome.stamp is not None and outcome.stamp.size_bytes == len(PNG) + 4


def test_a_file_that_is_replaced_while_it_is_read_is_not_taken_under_the_new_one_s_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, quiet = _file(tmp_path / "a.tif"), Stamp.of((tmp_path / "a.tif").stat())
    other = _file(tmp_path / "b.tif", PNG + b"other")
    other_stamp = Stamp.of(other.stat())
    read = os.pread

    def replace_meanwhile(fd: int, count: int, offset: int) -> bytes:
        if other.exists():
            other.replace(file)
        return read(fd, count, offset)

    monkeypatch.setattr(os, "pread", replace_meanwhile)
    outcome = _take(file, quiet)
    # the unlinked inode's ctime moved, so that it shows
    assert isinstance(outcome, NotTaken) and outcome.state is FileState.SETTLING
    assert outcome.stamp != other_stamp


def _leases_work(folder: Path) -> bool:
    file = _file(folder / "probe")
    fd = os.open(file, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (OSError, AttributeError):
        return False
    finally:
        os.close(fd)
    return True


@pytest.mark.parametrize("mode", ["r+b", "ab"])
def test_a_file_somebody_has_open_for_writing_settles_on(tmp_path: Path, mode: str) -> None:
    if not _leases_work(tmp_path):
        pytest.skip("this file system or kernel has no leases")
    file = _file(tmp_path / "a.tif")
    with file.open(mode):
        outcome = _not_taken(_take(file))
        assert outcome.state is FileState.SETTLING and "open for writing" in outcome.reason
    assert isinstance(_take(file), Taken)


def test_readers_disturb_nobody(tmp_path: Path) -> None:
    file = _file(tmp_path / "a.tif")
    with file.open("rb"):
        assert isinstance(_take(file), Taken)
    with file.open("r+b") as stream:  # and our momentary lease is gone: this would block otherwise
        stream.write(b"x")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EINVAL, errno.ENOLCK])
def test_where_the_kernel_does_not_tell_nobody_is_accused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no leases here")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert isinstance(_take(_file(tmp_path / "a.tif")), Taken)


@pytest.mark.parametrize("name", ["a.tif", "A.TIFF", "a.Png", "a.jpeg", "a.jp2", "a.webp", "a.pgm", "a.bmp"])
def test_a_name_that_promises_a_picture_is_believed(tmp_path: Path, name: str) -> None:
    assert isinstance(_take(_file(tmp_path / name, b"not yet looked into")), Taken)


@pytest.mark.parametrize(
    "head",
    [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", PNG, b"\xff\xd8\xff\xe0", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
     b"P5\n", b"RIFF\x10\0\0\0WEBPVP8 "],
)  # fmt: skip
def test_a_picture_under_any_name_is_taken(tmp_path: Path, head: bytes) -> None:
    assert isinstance(_take(_file(tmp_path / "no suffix", head)), Taken)


@pytest.mark.parametrize("content", [b"", b"hello", b"RIFF\x10\0\0\0WAVEfmt ", b"%PDF-1.7", b"II*", b"\x89PNX"])
def test_what_is_no_picture_is_ignored(tmp_path: Path, content: bytes) -> None:
    file = _file(tmp_path / "notes.txt", content)
    outcome = _not_taken(_take(file))
    assert (outcome.state, outcome.stamp) == (FileState.IGNORED, Stamp.of(file.stat()))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    _file(tmp_path / "a.tif")
    (tmp_path / "link.tif").symlink_to("a.tif")
    (tmp_path / "loop.tif").symlink_to("loop.tif")
    for name in ("link.tif", "loop.tif"):
        outcome = _not_taken(_take(tmp_path / name, Stamp(1, 1, 1, 1)))
        assert (outcome.state, "symbolic link" in outcome.reason) == (FileState.IGNORED, True)


def test_a_fifo_neither_hangs_nor_is_taken(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    assert _not_taken(_take(tmp_path / "a.tif")).state is FileState.IGNORED


def test_a_folder_that_took_the_file_s_place_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.tif").mkdir()
    assert _not_taken(_take(tmp_path / "a.tif")).state is FileState.IGNORED


def test_a_file_that_is_gone_has_vanished(tmp_path: Path) -> None:
    quiet = Stamp(1, 1, 1, 1)
    assert _not_taken(_take(tmp_path / "a.tif", quiet)).state is FileState.VANISHED
    _file(tmp_path / "file")
    assert _not_taken(_take(tmp_path / "file" / "a.tif", quiet)).state is FileState.VANISHED


def test_a_disk_that_fails_blocks_and_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(tmp_path / "a.tif")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    outcome = _not_taken(_take(file))
    assert outcome.state is FileState.BLOCKED
    assert outcome.reason == "It cannot be read (EIO: Input/output error); it is tried again by itself."


def test_a_file_we_may_not_read_is_blocked() -> None:
    """As somebody who is not root, whom nothing stops."""
    program = (
        "import os, pwd, sys; from daemon import intake; from worker.files import Stamp\n"
        "if os.getuid() == 0: os.setgroups([]); os.setuid(pwd.getpwnam('nobody').pw_uid)\n"
        "print(intake.take(os.fsencode(sys.argv[1]), b'a.tif', Stamp(1, 1, 1, 1)))"
    )
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are for their owner only
        file = _file(Path(folder) / "a.tif")
        file.chmod(0)
        Path(folder).chmod(0o755)
        done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, timeout=30)
    assert "FileState.BLOCKED" in done.stdout and "EACCES: Permission denied" in done.stdout, done.stderr
    assert "it is tried again by itself" in done.stdout


def test_a_hash_ends_when_the_watcher_does(tmp_path: Path) -> None:
    path = _file(tmp_path / "large.tif", bytes(5 * intake.BLOCK_BYTES))
    asked: list[int] = []

    def go_on() -> bool:
        asked.append(1)
        return len(asked) < 3

    outcome = intake.take(bytes(tmp_path), b"large.tif", Stamp.of(path.lstat()), go_on)
    assert _not_taken(outcome).state is FileState.SETTLING
    assert "next start" in _not_taken(outcome).reason
    assert len(asked) == 3
