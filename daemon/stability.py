"""When is a file finished? Pure bookkeeping: clock and stamps are arguments."""

import dataclasses
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from worker.files import Stamp

#: from a look that failed to the next one; it doubles …
FIRST_RETRY_S: Final = 15.0
#: … up to this: with the settle time of a share (15 s) it is less than the minute that a recovery may take
LONGEST_RETRY_S: Final = 40.0

Thing = TypeVar("Thing")


@dataclasses.dataclass
class _Watched:
    stamp: Stamp
    quiet_since_s: float


class StabilityTracker:
    """Files that settle: quiet means the same size, times and inode for `settle_s` on a monotonic clock.

    Quiet is necessary and not sufficient (a file may be preallocated, or written through memory): the taker still asks
    for writers, and compares the stamp before and after hashing.
    """

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self._watched: dict[bytes, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def observe(self, path: bytes, stamp: Stamp, now_s: float) -> None:
        """Note how a file looks at a time; any difference starts its quiet time anew."""
        known = self._watched.get(path)
        if known is None or known.stamp != stamp:
            self._watched[path] = _Watched(stamp, now_s)

    def restart(self, path: bytes, now_s: float) -> None:
        """Start a file's quiet time anew: somebody has it open for writing."""
        if path in self._watched:
            self._watched[path].quiet_since_s = now_s

    def forget(self, path: bytes) -> None:
        """The file was taken, cannot be taken, or is gone."""
        self._watched.pop(path, None)

    def is_quiet(self, path: bytes, now_s: float) -> bool:
        """Whether a file that was observed has been quiet for long enough."""
        watched = self._watched.get(path)
        return watched is not None and now_s - watched.quiet_since_s >= self.settle_s

    def settled(self, now_s: float) -> Iterator[tuple[bytes, Stamp]]:
        """Files that have been quiet for long enough, with the stamp they were quiet at."""
        for path, watched in list(self._watched.items()):
            if self.is_quiet(path, now_s):
                yield path, watched.stamp


class RetryClock(Generic[Thing]):
    """When to look again at what could not be read: no event tells that a disk or a server is well again."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, tuple[float, float, Thing]] = {}

    def __contains__(self, path: bytes) -> bool:
        return path in self._waiting

    def note(self, path: bytes, thing: Thing, now_s: float) -> None:
        """It failed once more."""
        known = self._waiting.get(path)
        pause_s = min(2 * known[1], LONGEST_RETRY_S) if known else FIRST_RETRY_S
        self._waiting[path] = (now_s + pause_s, pause_s, thing)

    def forget(self, path: bytes) -> None:
        """It can be read again, or is gone."""
        self._waiting.pop(path, None)

    def due(self, now_s: float) -> list[tuple[bytes, Thing]]:
        """What is to be tried now; it stays due until `note` or `forget`."""
        return [(path, thing) for path, (at_s, _, thing) in self._waiting.items() if now_s >= at_s]
