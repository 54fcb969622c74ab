"""What one colouring process may take, so that a hostile or broken file can end its own attempt and nothing else.

Time is Celery's to limit (`job_limit_s`): it kills the process. Memory and file size are the kernel's (setrlimit(2)).
"""

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import Final

#: bytes of a derivative's pixel at most, 16-bit RGB, and room for what else a file holds
_BYTES_PER_PIXEL: Final = 7
_STATUS: Final = Path("/proc/self/status")
#: linux/prctl.h
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


def apply(*, memory_mib: int, max_megapixels: float, processes: int) -> None:
    """Limit this process from now on; call it when the net is loaded, which does not count.

    Past the memory limit an allocation fails (MemoryError, or the end of the process inside a library); past the
    file-size limit a write fails with EFBIG. No core dumps: they would hold pictures.

    Args:
        memory_mib: more than now; 0 for half of the machine's, shared among `processes`.
        max_megapixels: of the largest scan that is taken.
        processes: colouring processes on this machine.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, int(max_megapixels * 1e6 * _BYTES_PER_PIXEL) + (64 << 20))
    if (now := _data_bytes()) is not None:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        _lower(resource.RLIMIT_DATA, now + ((memory_mib << 20) or machine // 2 // processes))


def hand_down_no_capability() -> None:
    """Let what this process starts have no capability of it; call it before there are threads.

    The watcher has one under `photochrom up`, and what parses pictures must have none.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def _lower(which: int, limit: int) -> None:
    """Never raise what somebody else has set lower."""
    soft, hard = resource.getrlimit(which)
    lowest = min([limit, *(value for value in (soft, hard) if value != resource.RLIM_INFINITY)])
    resource.setrlimit(which, (lowest, hard))


def _data_bytes() -> int | None:
    """What RLIMIT_DATA counts (private writable memory) at the moment; None where the kernel does not tell."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmData:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024
