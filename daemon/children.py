"""The supervisor's table of parts: start, look after, restart with growing pauses, end without leaving anything behind.

A part is whatever can be started and seen to be alive: a child process here, the embedded broker in `broker`. Each
child leads a session and process group of its own, so that Ctrl-C in the terminal reaches the supervisor alone and what
a dead child leaves behind can be ended with it. Start parts from the main thread only (see `leash`).
"""

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from daemon.leash import leashed
from worker.errors import ExitCode, SetupError

logger = logging.getLogger(__name__)

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 10.0)
HEALTHY_S = 60.0  # after so long a part counts as well again
TERM_S = 12.0  # from SIGTERM to SIGKILL
LOOK_S = 0.05
#: exit codes that a restart does not change; those of database and broker may heal by themselves
HOPELESS = frozenset({ExitCode.USAGE, ExitCode.BAD_SETTING, ExitCode.BAD_ROOT, ExitCode.BAD_OUTPUT, ExitCode.WEIGHTS,
                      ExitCode.DEPENDENCY})  # fmt: skip


class Part(Protocol):
    """What a `Keeper` keeps running."""

    name: str

    def start(self) -> None:
        """Start it. Raises SetupError when that is impossible at the moment."""

    def is_alive(self) -> bool:
        """Whether it still runs."""

    def bury(self) -> str:
        """Clear away what a dead part left; says how it ended: `ended with status 1`."""


class Child:
    """One child process, by its command line.

    Attributes:
        name: `worker`, `watch`, `beat`.
        boot: this start's own name, new at every start, by which its leases are known.
        status: how it ended: exit code, or minus the signal's number; None while it runs or before the first start.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str],
        boot_variable: str = "",
        on_end: Callable[[str, bool], None] = lambda boot, asked: None,
    ) -> None:
        """`boot_variable` hands the boot name down; `on_end` gets it when the child ended, and whether we had asked."""
        self.name = name
        self.boot = ""
        self.status: int | None = None
        self._command = command
        self._log = log
        self._environ = environ
        self._boot_variable = boot_variable
        self._on_end = on_end
        self._asked = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, which is its group's too; None before the first start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Starts it with a fresh boot name; its output is appended to the log."""
        self.boot = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.status, self._asked = None, False
        own = {self._boot_variable: self.boot} if self._boot_variable else {}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                leashed(list(self._command), signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environ, **own},
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        """Whether its first process runs; what that one started is not asked."""
        return self._process is not None and self._process.poll() is None

    def bury(self) -> str:
        """Kills the rest of its group, reaps it and reports its death; harmless when there is nothing to bury."""
        if self._process is None:
            return "was not running"
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.status = self._process.wait()
        self._process = None
        self._on_end(self.boot, self._asked)
        return f"was ended by signal {-self.status}" if self.status < 0 else f"ended with status {self.status}"

    def terminate(self) -> None:
        """Asks its first process to end. That one ends its own: a worker lets them finish what they have in hand."""
        self._asked = True
        if self._process is not None:
            self._process.terminate()


class Keeper:
    """Keeps one part running: a death is told, and followed by a restart after 1, 2, 4, 8, 10, 10 … s."""

    def __init__(self, part: Part, *, started: bool = False) -> None:
        """`started`: the part runs already."""
        self.part = part
        self.hopeless: int | None = None  # the exit code with which it ended before it ever was well
        self.deaths = 0  # in a row, without a minute of health between
        self._was_well = False
        self._running = started
        self._since_s = time.monotonic() if started else -float("inf")  # started at, or to be started again at

    def tick(self, now_s: float) -> str | None:
        """Looks after the part at a monotonic time in seconds; the sentence to tell, if something happened."""
        if self._running and not self.part.is_alive():
            return self._mourn(now_s, self.part.bury())
        if self._running or now_s < self._since_s:
            self._was_well |= self._running and now_s - self._since_s >= HEALTHY_S
            return None
        try:
            self.part.start()
        except (SetupError, OSError) as error:
            return self._mourn(now_s, f"cannot start: {error}")
        self._running, self._since_s = True, now_s
        return f"The {self.part.name} was started again." if self.deaths else None

    def _mourn(self, now_s: float, how: str) -> str:
        if self._running and now_s - self._since_s >= HEALTHY_S:
            self.deaths, self._was_well = 0, True
        pause_s = BACKOFF_S[min(self.deaths, len(BACKOFF_S) - 1)]
        self.deaths += 1
        self._running, self._since_s = False, now_s + pause_s
        status = getattr(self.part, "status", None)
        if status in HOPELESS and not self._was_well:
            self.hopeless = status
            return f"The {self.part.name} {how}."
        return f"The {self.part.name} {how}; it is started again in {pause_s:.0f} s."


def stop(children: Sequence[Child], *, at_once: Callable[[], bool] = lambda: False, term_s: float = TERM_S) -> None:
    """Ends all: SIGTERM, and SIGKILL to what is left of their groups after `term_s` seconds or when `at_once` says so.

    Returns when no process of theirs is left.
    """
    for child in children:
        child.terminate()
    deadline = time.monotonic() + term_s
    while any(child.is_alive() for child in children) and time.monotonic() < deadline and not at_once():
        time.sleep(LOOK_S)
    for child in children:
        child.bury()
