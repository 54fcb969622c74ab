"""Originals: opened read-only, never through a link below their root, and checked to be the same before and after."""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from worker.errors import ScanUnreadable, ScanVanished
from worker.meanings import in_words
from worker.tables import absolute, display

#: a descriptor that only leads on (O_PATH) needs no right to list the directory, as a path would not
_ON_THE_WAY: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
#: what the system says where a directory is missing, a file lies in its place, or a link
_NO_WAY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK})


def open_below(root: bytes, path: bytes) -> int:
    """Open a file below a root for reading, part by part, so that no link below the root is followed.

    A look at the path beforehand would not do: a directory may become a link in between. The root itself may be
    reached by links, which are the operator's.

    Raises:
        FileNotFoundError: a directory on the way is gone, or a link has taken its place; or the file is gone.
        OSError: ELOOP when the file itself is a link; else as the system says.
    """
    *directories, name = list(filter(None, path.split(b"/"))) or [b"."]
    descriptor = os.open(root, _ON_THE_WAY)
    try:
        for directory in directories:
            below = _step(directory, descriptor)
            os.close(descriptor)
            descriptor = below
        return os.open(name, _FILE, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _step(directory: bytes, descriptor: int) -> int:
    if directory in {b".", b".."}:
        raise FileNotFoundError(errno.ENOENT, "a path of the record has no such part", os.fsdecode(directory))
    try:
        return os.open(directory, _ON_THE_WAY | os.O_NOFOLLOW, dir_fd=descriptor)
    except OSError as error:
        if error.errno in _NO_WAY:
            raise FileNotFoundError(errno.ENOENT, error.strerror, os.fsdecode(directory)) from error
        raise


@contextlib.contextmanager
def open_original(root: bytes, path: bytes) -> Iterator[int]:
    """A descriptor of an original: read-only, never through a link below its root.

    Raises:
        ScanVanished: the file is gone, or a link has taken its place.
        ScanUnreadable: the root is gone, or the file may not be read.
    """
    if not os.path.isdir(root):
        raise ScanUnreadable(f"The folder {display(root)} is not there. Mount it; the job goes on by itself.")
    full = absolute(root, path)
    try:
        fd = open_below(root, path)
    except OSError as error:
        if error.errno in _NO_WAY:
            why = "was a link or behind one, which is not followed," if os.path.lexists(full) else "was gone"
            raise ScanVanished(f"{display(full)} {why} when its turn came. Put it back and it is taken.") from error
        raise ScanUnreadable(f"{display(full)} cannot be opened ({in_words(error)}). It is tried again.") from error
    try:
        yield fd
    finally:
        os.close(fd)


def stamp(fd: int) -> tuple[int, int, int, int]:
    """What tells that a file was touched: inode, size, and both times in nanoseconds."""
    stat = os.fstat(fd)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
