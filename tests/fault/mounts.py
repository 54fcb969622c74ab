"""Mounts that only the test and its children see, and processes that file modes bind even when root runs them."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CLONE_NEWNS = 0x00020000


def own_mounts() -> None:
    """Moves this thread, and whatever it starts, into a mount namespace of its own; skips where that is not allowed."""
    if os.getuid() != 0:
        pytest.skip("only root may make a mount namespace here")
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        pytest.skip(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    made = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounts cannot be made private: {made.stderr.strip()}")


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def unmount(path: Path) -> None:
    subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


def is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


@contextlib.contextmanager
def tmpfs(path: Path, size: str, source: str = "tmpfs") -> Iterator[Path]:
    """A small file system of its own."""
    path.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", source, path)
    try:
        yield path
    finally:
        while os.path.ismount(path):
            unmount(path)


def fill(folder: Path) -> Path:
    """Take all space of a small file system; the file to remove later."""
    filler = folder / ".filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 9))
    return filler


def without_privileges() -> tuple[str, ...]:
    """A command prefix after which file modes bind: nothing for a plain user, no capabilities for root."""
    if os.getuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root passes every file mode, and setpriv is not here to take that away")
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
