"""Named points at which a test may make a process die, stop or fail; without PHOTOCHROM_FAULT each does nothing.

PHOTOCHROM_FAULT names a folder. A file in it that is named like a point arms that point, and holds what the first
process to get there shall do: `kill`, `kill 0.3` (so many seconds later, in the middle of what follows), `stop`,
`raise ENOSPC`. The file is renamed to `<point>.hit` at that moment, so that a fault happens once, whoever comes again.
"""

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Final

_FOLDER: Final = os.environ.get("PHOTOCHROM_FAULT")


def _nothing(name: str) -> None:
    """What `point` is outside the fault tests."""


def _armed(name: str) -> None:
    """Does what the point is armed for, once.

    Args:
        name: of the point.

    Raises:
        OSError: the point is armed with `raise`.
    """
    armed = Path(_FOLDER or "", name)
    try:
        told = armed.read_text(encoding="utf-8")  # whoever waits for the hit may take it away at once
        armed.rename(armed.with_name(f"{name}.hit"))  # one of all processes succeeds
    except FileNotFoundError:
        return
    kind, _, argument = told.strip().partition(" ")
    if kind == "raise":
        number = getattr(errno, argument)
        raise OSError(number, os.strerror(number), name)
    what = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[kind]
    if argument:
        threading.Timer(float(argument), os.kill, (os.getpid(), what)).start()
    else:
        # to this thread: sent to the process, another one would take it, and this one go on until it does
        signal.pthread_kill(threading.get_ident(), what)


point = _nothing if _FOLDER is None else _armed
