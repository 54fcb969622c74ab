"""What an answer of `why` is made of: its parts, and how times, states and errors are put into words."""

import dataclasses
import datetime as dt
import errno
import os
from functools import partial

from worker.answers import ask
from worker.tables import JobState, SourceFile, display


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is known of a path.

    Attributes:
        path: absolute, as asked for.
        state: the job's or the file's state, or `outside`, `offline`, `folder`, `missing`, `unseen`, `derivative`,
            `report`, `temporary`.
        sentence: for a person.
        job_id: its job, if it has one.
    """

    path: str
    state: str
    sentence: str
    job_id: int | None = None


def explained(path: bytes, state: str, sentence: str, row: SourceFile | None = None) -> Explanation:
    """The explanation of a path, with the job of its file if the record has one."""
    return Explanation(
        path=display(path), state=str(state), sentence=sentence, job_id=row.job_id if row is not None else None
    )


def look_at(path: bytes) -> os.stat_result | OSError | None:
    """How a path looks now; None when nothing is there."""
    try:
        return ask(path, partial(os.lstat, path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error


def error_words(error: OSError) -> str:
    """Name and meaning of a system's error."""
    return f"{errno.errorcode.get(error.errno or 0, '?')} ({error.strerror})"


def state_words(state: JobState) -> str:
    """A state as people write it."""
    return state.replace("_", " ")


def at(time: dt.datetime | None) -> str:
    """A time as people write it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC") if time is not None else "an unknown time"
