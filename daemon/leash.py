"""Starts a program that gets a signal when its parent dies, even by SIGKILL: `python leash.py PARENT SIGNAL PROGRAM…`.

Linux keeps the wish over `exec` (prctl(2), PR_SET_PDEATHSIG), so that this process becomes the program and costs
nothing afterwards. It is a program of its own because `preexec_fn` is not safe in a process with threads. Elsewhere
than on Linux the program simply starts.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def leashed(program: list[str], signal_number: int) -> list[str]:
    """The command that runs `program` so that it gets the signal when the calling thread's process dies."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(signal_number)), *program]


def main(arguments: list[str]) -> None:
    """Wishes for the signal, makes sure that the parent still lives, and becomes the program."""
    parent, signal_number, *program = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before we could ask
        sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    main(sys.argv[1:])
