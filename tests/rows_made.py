"""Rows as the parts of the product write them, for tests that need one without its part."""

import os

from worker.files import Stamp
from worker.tables import FileState, SourceFile, display


def source_file(path: bytes = b"a.tif", root: str = "archive", **changes: object) -> SourceFile:
    """A file's row as the watcher writes it."""
    stamp = Stamp(10, 1, 2, 3)
    return SourceFile(
        root=root, directory=os.path.dirname(path), path=path, display_path=display(path), state=FileState.SETTLING,
        size_bytes=stamp.size_bytes, mtime_ns=stamp.mtime_ns, ctime_ns=stamp.ctime_ns, inode=stamp.inode, **changes,
    )  # fmt: skip
