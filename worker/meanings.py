"""What an error that only a library or the system has named means for a job; above all, whether memory was lacking."""

import errno
import re
from collections.abc import Iterator
from typing import Final

from sqlalchemy.exc import OperationalError

from worker.database_errors import advice_on, first_line
from worker.errors import MemoryExceeded, OutputBlocked, OutputFull, PhotochromError, RecordAway, ScanUnreadable

#: library, error → the attribute that tells and its value, or "" where the type tells; named, so that none is imported
_BY_TYPE: Final = {
    ("cv2", "error"): ("code", -4),  # StsNoMem
    ("tensorflow", "ResourceExhaustedError"): ("", None),
}
#: how libraries say it that have no type or code for it, in lower case
_WORDINGS: Final = (
    "out of memory",  # libvips, libtiff, libpng
    "insufficient memory",  # libjpeg, libpng
    "not enough memory",  # OpenJPEG
    "memory allocation fail",  # exiv2, OpenJPEG
    "cannot allocate", "can't allocate", "could not allocate", "couldn't allocate", "unable to allocate",
    "failed to allocate", "no space for ",  # libtiff and the codecs in it
    "bad_alloc",  # the C++ library's
    "oom when allocating", "status: 1, message: could not",  # TensorFlow, and oneDNN in it (1 is dnnl_out_of_memory)
    "can't start new thread",  # Python: no room for a stack
    "failed to map segment",  # the loader, of a library that is loaded late
)  # fmt: skip
_SAYS_SO: Final = re.compile("|".join(map(re.escape, _WORDINGS)), re.I)


def wants_memory(error: BaseException) -> bool:
    """Whether an allocation failed, whoever says so: by the error's type, else by its code, and by words at last."""
    return any(_lacks_memory(one) for one in _with_causes(error))


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came from: a library's clean-up may fail over what went wrong first."""
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _lacks_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | MemoryExceeded):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM  # never its words: they hold file names
    if isinstance(error, PhotochromError):
        return False
    kind = type(error)
    attribute, value = _BY_TYPE.get((kind.__module__.partition(".")[0], kind.__name__), (None, None))
    if attribute is not None and (not attribute or getattr(error, attribute, None) == value):
        return True
    return _SAYS_SO.search(str(error)) is not None


def in_words(error: OSError) -> str:
    """An error of the system by its name and its words: `EACCES: Permission denied`."""
    words = error.strerror or str(error)
    return words if error.errno is None else f"{errno.errorcode.get(error.errno, '?')}: {words}"


def out_of_memory(error: BaseException) -> MemoryExceeded:
    """The error of a job whose allocation failed."""
    words = " ".join(str(error).split()) or type(error).__name__  # libvips' go over several lines
    return MemoryExceeded(
        f"It takes more memory than one scan may ({words}). Raise job_memory_mib, or give the worker a machine with "
        "more memory; then `photochrom retry`."
    )


def from_exception(error: Exception) -> PhotochromError:
    """An error that no room has named; the scan is not to blame for a database that fails."""
    if wants_memory(error):
        return out_of_memory(error)
    if isinstance(error, OperationalError) and advice_on(error):  # none: it may be our own statement
        return RecordAway(f"The database failed: {first_line(error)}. The job goes on by itself.")
    return PhotochromError(f"Unexpected {type(error).__name__}: {error}")


def from_os_error(error: OSError) -> PhotochromError:
    """An error of the operating system that no room has named: the scan is not to blame for a disk or a share."""
    if wants_memory(error):
        return out_of_memory(error)
    words = in_words(error) + (f" ({error.filename!r})" if error.filename else "")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OutputFull(f"No space left: {words}. Free some; the job goes on by itself.")
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return OutputBlocked(f"{words}. Grant the permission; the job goes on by itself.")
    if error.errno in {errno.EIO, errno.ESTALE, errno.ENXIO, errno.ETIMEDOUT}:
        return ScanUnreadable(f"{words}. Check the disk or share; the job goes on by itself.")
    return PhotochromError(f"{type(error).__name__}: {words}")
