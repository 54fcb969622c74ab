"""When is a file finished? Pure bookkeeping: clock and stamps are arguments."""

import dataclasses
from collections.abc import Iterator

from worker.files import Stamp


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
