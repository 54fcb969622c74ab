"""What lies below a folder, so that two looks can be compared."""

import hashlib
import os
from pathlib import Path

Manifest = dict[bytes, tuple[str, int, int, int]]


def manifest(folder: Path) -> Manifest:
    """Every regular file below a folder: bytes, mtime, mode, inode; of anything else what it is."""
    return {
        path: entry(path)
        for directory, folders, names in os.walk(os.fsencode(folder))
        for path in (os.path.join(directory, name) for name in names + folders)
    }


def entry(path: bytes) -> tuple[str, int, int, int]:
    """What a manifest holds of one path."""
    status = os.lstat(path)
    digest = ""
    if os.path.isfile(path) and not os.path.islink(path):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, status.st_mtime_ns if digest else 0, status.st_mode, status.st_ino
