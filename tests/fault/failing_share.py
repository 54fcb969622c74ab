"""A share that answers everything but what is in its files: a read-only view of a folder whose reads fail on demand.

A FUSE file system by the kernel's own protocol (fuse.h). Files are read past the page cache, so that each read of a
program comes here, and the errno that it gets is the share's.
"""

import contextlib
import errno
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from hung_share import opened

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_FLUSH, _OPENDIR, _READDIR, _RELEASEDIR, _BATCH_FORGET = 25, 27, 28, 29, 42
_DIRECT_IO = 1
_IN, _OUT, _ATTR = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ"), struct.Struct("<6Q10I")
_READ_IN, _DIRENT = struct.Struct("<QQI"), struct.Struct("<QQII")


class FailingShare:
    """Serves one folder.

    Attributes:
        fails: errno of every read; 0: none fails.
        refused: how many reads have failed.
    """

    def __init__(self, server: int, folder: Path) -> None:
        self.fails = self.refused = 0
        self._server = server
        self._paths = [Path(), folder]  # by node; 1 is the root
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            _LOOKUP: self._lookup, _GETATTR: lambda node, _: struct.pack("<QII", 0, 0, 0) + self._attributes(node),
            _OPEN: lambda *_: struct.pack("<QII", 0, _DIRECT_IO, 0), _OPENDIR: lambda *_: bytes(16), _READ: self._read,
            _READDIR: self._entries, _STATFS: lambda *_: struct.pack("<5Q4I24x", *[1 << 20] * 5, 4096, 255, 4096, 0),
            _RELEASE: lambda *_: b"", _RELEASEDIR: lambda *_: b"", _FLUSH: lambda *_: b"",
        }  # fmt: skip

    def serve(self) -> None:
        """Until the file system is unmounted."""
        with contextlib.suppress(OSError):  # ENODEV: it is
            while True:
                asked = os.read(self._server, 1 << 17)
                _, opcode, unique, node, *_ = _IN.unpack_from(asked)
                if opcode in {_FORGET, _BATCH_FORGET}:
                    continue
                failed, answer = 0, b""
                try:
                    answer = self._answers[opcode](node, asked[_IN.size :])
                except KeyError:
                    failed = errno.ENOSYS
                except OSError as error:
                    failed = error.errno or errno.EIO
                os.write(self._server, _OUT.pack(_OUT.size + len(answer), -failed, unique) + answer)

    def _node(self, path: Path) -> int:
        if path not in self._paths:
            self._paths.append(path)
        return self._paths.index(path)

    def _attributes(self, node: int) -> bytes:
        it = self._paths[node].lstat()
        times = [divmod(at, 10**9) for at in (it.st_atime_ns, it.st_mtime_ns, it.st_ctime_ns)]
        seconds, nanoseconds = zip(*times, strict=True)
        return _ATTR.pack(it.st_ino, it.st_size, it.st_blocks, *seconds, *nanoseconds, it.st_mode, it.st_nlink,
                          it.st_uid, it.st_gid, 0, 4096, 0)  # fmt: skip

    def _lookup(self, node: int, asked: bytes) -> bytes:
        path = self._paths[node] / os.fsdecode(asked.rstrip(b"\0"))
        path.lstat()
        found = self._node(path)
        return struct.pack("<4Q2I", found, 0, 0, 0, 0, 0) + self._attributes(found)

    def _read(self, node: int, asked: bytes) -> bytes:
        _, offset, size = _READ_IN.unpack_from(asked)
        if self.fails:
            self.refused += 1
            raise OSError(self.fails, os.strerror(self.fails))
        with self._paths[node].open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def _entries(self, node: int, asked: bytes) -> bytes:
        _, offset, size = _READ_IN.unpack_from(asked)
        answer = b""
        for number, path in enumerate(sorted(self._paths[node].iterdir())[offset:], offset + 1):
            name = os.fsencode(path.name)
            it = path.lstat()
            entry = _DIRENT.pack(it.st_ino, number, len(name), stat.S_IFMT(it.st_mode) >> 12) + name
            entry += bytes(-len(entry) % 8)
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return answer


@contextlib.contextmanager
def failing(folder: Path, mounted: Path) -> Iterator[FailingShare]:
    """Show `folder` at `mounted`, in the mount namespace of this thread."""
    with opened(mounted) as server:
        share = FailingShare(server, folder)
        threading.Thread(target=share.serve, daemon=True).start()
        yield share
