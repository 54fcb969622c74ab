"""Questions to file systems that may never answer: a share whose server is gone holds whoever looks at it, for ever.

No call of the system has a time limit, so each question is asked in a thread of its own, which is left waiting when it
has taken too long. There is one at a time for each folder: who asks while another question to it is unanswered is told
at once, and however long a share is away, few threads wait for it. What may take long on a share that is well, such as
a walk through it, is asked by a name of its own, so that nobody else takes it for silence.
"""

import _thread
import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Final, TypeVar

#: from a question to the conclusion that nobody answers; a busy share may take seconds
PATIENCE_S: Final = 5.0

Answer = TypeVar("Answer")
#: what is unanswered, by folder and name: since when (monotonic, seconds), and the answer to come
_asked: Final[dict[tuple[bytes, str], tuple[float, "Future[Any]"]]] = {}


class NoAnswer(TimeoutError):
    """A folder does not answer.

    Attributes:
        for_s: since the question that is still open was asked, seconds.
    """

    def __init__(self, folder: bytes, for_s: float) -> None:
        super().__init__(errno.ETIMEDOUT, f"no answer for {for_s:.0f} s", os.fsdecode(folder))
        self.for_s = for_s


def ask(
    folder: Path | bytes, question: Callable[[], Answer], patience_s: float = PATIENCE_S, *, what: str = ""
) -> Answer:
    """The answer to a question about a folder, or whatever it raises.

    Args:
        folder: that it is about.
        question: called in another thread; when it takes too long, it goes on there.
        patience_s: how long the answer is waited for, seconds.
        what: a name for questions that may take long; each name has its own turn.

    Raises:
        NoAnswer: there is none after `patience_s`, or an earlier question to this folder is open for so long.
    """
    key = os.fsencode(folder), what
    if (earlier := _asked.get(key)) is not None and earlier[1].running():  # one that never began tells nothing
        _wait(key[0], *earlier, patience_s)
    answer: Future[Answer] = Future()
    since_s = time.monotonic()
    # threading's own `start` waits for ever for a thread whose first step found no memory (python/cpython#140746)
    _thread.start_new_thread(_put, (question, answer))
    _asked[key] = mine = since_s, answer
    _wait(key[0], since_s, answer, patience_s)
    if _asked.get(key) is mine:  # one of thousands of folders, which nobody may ever ask again
        del _asked[key]
    return answer.result()


def _wait(folder: bytes, since_s: float, answer: "Future[Any]", patience_s: float) -> None:
    if not wait([answer], max(0.0, since_s + patience_s - time.monotonic())).done:
        raise NoAnswer(folder, time.monotonic() - since_s)


def _put(question: Callable[[], Answer], answer: "Future[Answer]") -> None:
    answer.set_running_or_notify_cancel()
    try:
        answer.set_result(question())
    except Exception as error:  # noqa: BLE001 - whoever asked gets it
        answer.set_exception(error)


def real_path(path: bytes) -> bytes:
    """The path without symbolic links; as it is written, where a folder on the way does not answer."""
    try:
        return ask(path, lambda: os.path.realpath(path), PATIENCE_S)
    except TimeoutError:
        return os.path.abspath(path)
