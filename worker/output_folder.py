"""The output folder as the system knows it: directories, names taken without replacing, bytes brought to the disk.

Directories are walked by descriptor without following links, so nothing is ever written outside the output root.
"""

import ctypes
import errno
import functools
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from worker.errors import OutputBlocked, OutputError, OutputFull
from worker.meanings import in_words, out_of_memory, wants_memory

_BLOCK_BYTES: Final = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE: Final = 1  # linux/fs.h
#: errno of a file system that cannot do what was asked
_CANNOT: Final = frozenset({errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK})


@contextmanager
def output_errors() -> Iterator[None]:
    """Errors of the operating system while writing, by what they mean for the job.

    Raises:
        OutputFull: no space or quota.
        MemoryExceeded: no memory.
        OutputBlocked: anything else about the output folder.
    """
    try:
        yield
    except OSError as error:
        if wants_memory(error):
            raise out_of_memory(error) from error
        reason = in_words(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputFull(
                f"No room for the derivative ({reason}). Free some space; the job goes on by itself."
            ) from error
        if error.errno == errno.EFBIG:
            raise OutputError(f"The derivative is too large for the output's file system ({reason}).") from error
        raise OutputBlocked(
            f"The derivative cannot be written ({reason}). Check the output folder's rights and mount; "
            "the job goes on by itself."
        ) from error


def open_directory(root: bytes, relative: bytes, *, create: bool = True, mode: int | None = None) -> int:
    """A descriptor of a directory below a root, walked part by part without following links.

    Args:
        root: an existing folder (a link there is the operator's choice and is followed).
        relative: below it.
        create: make what is missing.
        mode: of the files to come; who may read them may enter the directories that are made. None: by the umask.

    Raises:
        OSError: a part is missing, is no directory, is a link, or leads out of the root.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in filter(None, relative.split(b"/")):
            if part in (b".", b".."):
                raise OSError(errno.EINVAL, f"{os.fsdecode(relative)!r} leads out of the output folder")
            made = create and _made(part, descriptor)
            below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
            if made and mode is not None:
                with suppress(PermissionError):  # a file system without modes
                    inherited = os.fstat(descriptor).st_mode & stat.S_ISGID
                    os.fchmod(descriptor, inherited | mode | (mode & 0o444) >> 2)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _made(name: bytes, directory: int) -> bool:
    """Make a directory, and bring its entry to the disk; False when it is there already."""
    try:
        os.mkdir(name, dir_fd=directory)
    except FileExistsError:
        return False
    synchronise(directory)  # or a power cut takes it, with all that was synchronised in it
    return True


def rename_without_replacing(directory: int, old: bytes, new: bytes) -> None:
    """Rename within a directory; fail when the new name exists.

    By a hard link, else by renameat2 (Linux), else, on file systems that know neither, by creating the name first.

    Raises:
        FileExistsError: the name is taken.
        OSError: as the system says.
    """
    try:
        os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    else:
        os.unlink(old, dir_fd=directory)
        return
    if _renameat2(directory, old, new):
        return
    # the empty file holds the name for the moment until our own rename takes its place
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory))
    try:
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):  # else it would hold the name for ever: nobody knows it as ours
            os.unlink(new, dir_fd=directory)
        raise


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _renameat2(directory: int, old: bytes, new: bytes) -> bool:
    """True when renamed; False when the system or file system does not know the call."""
    call = getattr(_libc(), "renameat2", None)
    if call is None:
        return False
    if call(directory, old, directory, new, _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), os.fsdecode(new))


def sha256_of(descriptor: int) -> str:
    """The sha256 of all bytes of an open file, whose position stays."""
    digest = hashlib.sha256()
    for block in blocks(descriptor):
        digest.update(block)
    return digest.hexdigest()


def sha256_of_name(directory: int, name: bytes) -> str | None:
    """What lies under a name: None when nothing; no sha256 (an empty string) when it is no file that we may read."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError:  # a link, or a file we may not read: not ours
        return ""
    try:
        return sha256_of(descriptor) if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""
    finally:
        os.close(descriptor)


def blocks(descriptor: int) -> Iterator[bytes]:
    """All bytes of an open file, a mebibyte at a time, without moving its position."""
    offset = 0
    while block := os.pread(descriptor, _BLOCK_BYTES, offset):
        yield block
        offset += len(block)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; `os.write` may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def published_mode() -> int:
    """0666 without the umask, which can only be read by setting it; /proc tells without."""
    with suppress(OSError, StopIteration, ValueError), open("/proc/self/status", "rb") as status:  # noqa: PTH123
        line = next(line for line in status if line.startswith(b"Umask:"))
        return 0o666 & ~int(line.split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


def synchronise(directory: int) -> None:
    """Bring a directory's entries to the disk where the file system can (SMB and some FUSE cannot)."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
