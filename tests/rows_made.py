"""Rows as the parts of the product write them, for tests that need one without its part."""

import os

from worker.files import Stamp
from worker.tables import FileState, Root, RootState, SourceFile, display


def source_file(path: bytes = b"a.tif", root: str = "archive", **changes: object) -> SourceFile:
    """A file's row as the watcher writes it."""
    stamp = Stamp(10, 1, 2, 3)
    return SourceFile(
        root=root, directory=os.path.dirname(path), path=path, display_path=display(path), state=FileState.SETTLING,
        size_bytes=stamp.size_bytes, mtime_ns=stamp.mtime_ns, ctime_ns=stamp.ctime_ns, inode=stamp.inode, **changes,
    )  # fmt: skip


def watched(name: str = "archive", state: RootState = RootState.ONLINE) -> Root:
    """A folder's row; `Session.merge` takes it as often as it is made."""
    return Root(name=name, path=b"/in", output=b"/out", mode="scan", fs_type="", state=state, identity="{}", files=0)
