"""Room on disks: how much there is, and a refusal before the first byte is written rather than after the last."""

import os
import resource
from pathlib import Path

from worker.errors import OutputFull


def free_bytes(where: int | Path) -> int | None:
    """What an unprivileged process may still write on a file system.

    Args:
        where: a path on it, or the descriptor of a file there.

    Returns:
        None when it does not say (some FUSE file systems count nothing, and a path may be gone).
    """
    try:
        status = os.statvfs(where)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def refuse_without_room(fd: int, wanted_bytes: int, spared_bytes: int = 0) -> None:
    """See that a file can grow to its size, or as far as the process may write: nobody waits for more than that.

    Args:
        fd: of the file.
        wanted_bytes: how far it is to grow.
        spared_bytes: to stay free besides.

    Raises:
        OutputFull: it cannot; the scan waits without a strike.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    wanted_bytes = wanted_bytes if limit == resource.RLIM_INFINITY else min(wanted_bytes, limit)
    free = free_bytes(fd)
    if free is not None and free < wanted_bytes + spared_bytes:
        spared = f", {spared_bytes / 2**20:.0f} MiB are to stay free" if spared_bytes else ""
        raise OutputFull(
            f"The derivative may take {wanted_bytes / 2**20:.0f} MiB{spared}, and only {free / 2**20:.0f} MiB are "
            "free. Free some space; the job goes on by itself."
        )
