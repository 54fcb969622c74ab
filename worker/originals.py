"""Originals: opened read-only, never through a link, and checked to be the same before and after."""

import contextlib
import os
from collections.abc import Iterator

from worker.errors import ScanUnreadable, ScanVanished
from worker.tables import absolute, display


@contextlib.contextmanager
def open_original(root: bytes, path: bytes) -> Iterator[int]:
    """A descriptor of an original: read-only, never through a link in its last part.

    Raises:
        ScanVanished: the file is gone.
        ScanUnreadable: the root is gone, or the file may not be read.
    """
    if not os.path.isdir(root):
        raise ScanUnreadable(f"The folder {display(root)} is not there. Mount it; the job goes on by itself.")
    full = absolute(root, path)
    try:
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ScanVanished(f"{display(full)} was gone when its turn came. Put it back and it is taken.") from error
    except OSError as error:
        raise ScanUnreadable(f"{display(full)} cannot be opened: {error.strerror}. It is tried again.") from error
    try:
        yield fd
    finally:
        os.close(fd)


def stamp(fd: int) -> tuple[int, int, int, int]:
    """What tells that a file was touched: inode, size, and both times in nanoseconds."""
    stat = os.fstat(fd)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
