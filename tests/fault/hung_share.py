"""A share whose server is gone: mounted, and no question to it is ever answered, as on a hard-mounted NAS.

A FUSE file system by the kernel's own protocol (fuse.h): its side answers the first message, which says that it is
there, and reads no more. Whoever asks then waits, and only a kill ends that, as it is with NFS.
"""

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

_FUSE = Path("/dev/fuse")
_MS_NOSUID_NODEV = 2 | 4
_MNT_DETACH = 2
#: fuse_in_header, the beginning of fuse_init_in (major, minor, max_readahead, flags), fuse_out_header, fuse_init_out
_IN, _INIT_IN, _OUT, _INIT_OUT = (struct.Struct(layout) for layout in ("<IIQQIIIHH", "<4I", "<IiQ", "<4I2H2I2H8I"))
_INIT = 26
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def hung(path: Path) -> Iterator[None]:
    """Mount it over a folder, in the mount namespace of this thread; at the end everything that waits fails."""
    with opened(path):
        yield


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A FUSE file system over a folder, of which nothing is answered yet but that it is there: its server's side."""
    try:
        server = os.open(_FUSE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    try:
        _mount(server, path)
        try:
            _say_hello(server)
            yield server
        finally:
            _libc.umount2(os.fsencode(path), _MNT_DETACH)
    finally:
        os.close(server)  # the connection is gone: ECONNABORTED for all who wait


def _mount(server: int, path: Path) -> None:
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    # by the system call: mount(8) looks at what it has mounted, and would wait for ever
    if _libc.mount(b"nas:/scans", os.fsencode(path), b"fuse.nas", _MS_NOSUID_NODEV, options) != 0:
        number = ctypes.get_errno()
        pytest.skip(f"no FUSE mount: {errno.errorcode.get(number, number)} ({os.strerror(number)})")


def _say_hello(server: int) -> None:
    asked = os.read(server, 1 << 17)
    _, opcode, unique, *_ = _IN.unpack_from(asked)
    assert opcode == _INIT
    major, minor, readahead, _ = _INIT_IN.unpack_from(asked, _IN.size)
    answer = _INIT_OUT.pack(major, min(minor, 31), readahead, 0, 12, 9, 1 << 12, 1, *[0] * 10)
    os.write(server, _OUT.pack(_OUT.size + len(answer), 0, unique) + answer)
