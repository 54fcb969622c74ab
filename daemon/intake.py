"""Taking a settled file: is anybody still writing, may it be read, is it a picture, what is its sha256?

Originals are opened read-only. Nothing is decoded here: the first bytes tell whether it is a picture at all.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Callable
from typing import Final

from worker.files import Stamp
from worker.meanings import in_words
from worker.originals import open_below
from worker.tables import FileState

BLOCK_BYTES: Final = 1 << 20
#: names that promise a picture; what they hold is the worker's business
PICTURE_SUFFIXES: Final = frozenset(
    b".tif .tiff .btf .png .jpg .jpeg .jpe .jfif .jp2 .j2k .jpf .jpx .webp .pgm .ppm .pnm .pbm .bmp .gif".split()
)
#: first bytes of pictures, for files whose name promises nothing
SIGNATURES: Final = (
    b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Taken:
    """A file whose bytes were read once, while nothing about it changed."""

    sha256: str
    stamp: Stamp


@dataclasses.dataclass(frozen=True)
class NotTaken:
    """Why a file was not taken, as its state and one sentence."""

    state: FileState
    reason: str
    stamp: Stamp | None = None  # as it looks now; None: not known


def ignore_lease_signals() -> None:
    """A writer that opens a file while we hold our momentary lease makes the kernel send SIGIO, which would kill us."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def take(root: bytes, path: bytes, quiet: Stamp, go_on: Callable[[], bool] = lambda: True) -> Taken | NotTaken:
    """Hash a file that looks settled.

    Args:
        root: the watched folder.
        path: below it.
        quiet: the stamp it has had for the settle time.
        go_on: asked after every mebibyte: a large file must not hold up a watcher that is to end.
    """
    try:
        fd = open_below(root, path)
    except OSError as error:
        return _not_openable(error)
    try:
        return _take(fd, path, quiet, go_on)
    except OSError as error:
        return NotTaken(FileState.BLOCKED, f"It cannot be read ({in_words(error)}); it is tried again by itself.")
    finally:
        os.close(fd)


def _take(fd: int, path: bytes, quiet: Stamp, go_on: Callable[[], bool]) -> Taken | NotTaken:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return NotTaken(FileState.IGNORED, "It is no regular file.", Stamp.of(status))
    if Stamp.of(status) != quiet:
        return NotTaken(FileState.SETTLING, "It is still changing.", Stamp.of(status))
    if has_writer(fd):
        return NotTaken(FileState.SETTLING, "A program still has it open for writing.")
    if not is_picture(fd, path):
        return NotTaken(FileState.IGNORED, "It is no picture: neither its name nor its first bytes say so.", quiet)
    if (sha256 := hashed(fd, go_on)) is None:
        return NotTaken(FileState.SETTLING, "The watcher ended while it read it; it is read again at the next start.")
    if (now := Stamp.of(os.fstat(fd))) != quiet:
        return NotTaken(FileState.SETTLING, "It changed while it was read.", now)
    return Taken(sha256, quiet)


def hashed(fd: int, go_on: Callable[[], bool]) -> str | None:
    """The sha256 of an open file's bytes; None when `go_on()`, asked after every mebibyte, turned false."""
    digest = hashlib.sha256()
    offset = 0
    while block := os.pread(fd, BLOCK_BYTES, offset):
        if not go_on():
            return None
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


def has_writer(fd: int) -> bool:
    """Does anybody have the file open for writing? False also where the kernel does not tell.

    fcntl(2), F_SETLEASE: a read lease is refused with EAGAIN while the file is open for writing. Needs ownership or
    CAP_LEASE, and a local file system. It is given back at once.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def promises_picture(path: bytes) -> bool:
    """Whether the name says that it is a picture."""
    return os.path.splitext(path)[1].lower() in PICTURE_SUFFIXES


def is_picture(fd: int, path: bytes) -> bool:
    """Whether an open file's name or its first bytes say that it is a picture."""
    if promises_picture(path):
        return True
    head = os.pread(fd, 16, 0)
    return head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _not_openable(error: OSError) -> NotTaken:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NotTaken(FileState.VANISHED, "It was gone when it had settled.")
    if error.errno == errno.ELOOP:
        return NotTaken(FileState.IGNORED, "It is a symbolic link; links are not followed.")
    return NotTaken(FileState.BLOCKED, f"It cannot be opened ({in_words(error)}); it is tried again by itself.")
