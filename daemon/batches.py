r"""Batches: a folder right below a root is held back until it is complete, and then taken as a whole.

Archives deliver boxes. What tells that a box is complete is the root's to say: a marker file that somebody puts into it
when it is, a count of pictures, or a manifest of checksums as sha256sum(1) writes them. Nothing about this is kept:
every answer comes from a look at the folder, so that a restart changes nothing.
"""

import collections
import dataclasses
import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import Final

from daemon import intake, scan
from daemon.checksum_list import parse_manifest
from daemon.intake import NotTaken
from daemon.stability import StabilityTracker
from worker.files import Stamp
from worker.meanings import in_words
from worker.originals import open_below
from worker.settings import RootSettings
from worker.tables import FileState, display

#: a batch is looked at again after so long; many files ask at the same time
LOOK_AGAIN_S: Final = 2.0
#: what was read of a complete batch is kept for so long after the last question
FORGET_S: Final = 600.0
#: most missing or wrong files that the reason of each file that waits names
NAMED: Final = 5
#: how the reason of a picture begins that a released batch does not list: it alone waits, and nothing waits for it
NOT_LISTED: Final = "It is not in"
MANIFEST_MAX_BYTES: Final = 64 << 20

GoOn = Callable[[], bool]


class _Stopped(Exception):
    """The watcher is to end."""


@dataclasses.dataclass
class _Batch:
    """What is known of one batch: enough that no byte is read twice while nothing is touched.

    Attributes:
        folder: below the root.
        settling: its listed files that are not hashed yet.
        hashes: sha256 by path below the batch, for the stamp at which it was read.
        pictures: whether it is one, for the stamp at which that was seen; of names that promise nothing.
        looked_s: when the batch was looked at, monotonic.
        asked_s: when somebody asked about it last.
        wait: why its files have to wait; None: they need not.
        listed: what its manifest lists.
    """

    folder: bytes
    settling: StabilityTracker
    hashes: dict[bytes, tuple[Stamp, str]] = dataclasses.field(default_factory=dict)
    pictures: dict[bytes, tuple[Stamp, bool]] = dataclasses.field(default_factory=dict)
    looked_s: float = -float("inf")
    asked_s: float = 0.0
    wait: NotTaken | None = None
    listed: frozenset[bytes] = frozenset()


class Gate:
    """Says which files of a root have to wait for the rest of their batch, and for what."""

    def __init__(self, root: RootSettings, settle_s: float, named: int = NAMED) -> None:
        """`settle_s`: how long a listed file must be quiet before it is compared (s); `named`: see `NAMED`."""
        self._named = named
        self._root = os.fsencode(root.path)
        self._settings = root
        self.settle_s = settle_s
        self._own = os.fsencode({"marker": root.batch_marker, "manifest": root.batch_manifest}.get(root.batch, ""))
        self._batches: dict[bytes, _Batch] = {}

    def held(self, path: bytes, go_on: GoOn = lambda: True) -> NotTaken | None:
        """Why a file has to wait; None when it need not.

        Args:
            path: below the root. One that lies in the root itself belongs to no batch.
            go_on: asked after every mebibyte: a large batch must not hold up a watcher that is to end.
        """
        name, slash, below = path.partition(b"/")
        if not slash or below == self._own:
            return None
        now_s = time.monotonic()
        batch = self._batches.setdefault(name, _Batch(name, StabilityTracker(self.settle_s)))
        batch.asked_s = now_s
        if not self._is_picture(batch, path):
            return None  # nobody waits for it, and it waits for nobody
        # whatever settles must have been looked at since it was touched
        if now_s - batch.looked_s > min(LOOK_AGAIN_S, self.settle_s):
            self._forget(now_s)
            try:
                self._look(batch, go_on)
            except _Stopped:
                return NotTaken(FileState.SETTLING, "The watcher ended while it read its batch; it is read again.")
            batch.looked_s = time.monotonic()
        if batch.wait is None and self._settings.batch == "manifest" and below not in batch.listed:
            return _blocked(f"{NOT_LISTED} {self._settings.batch_manifest} of its batch. Add it, or take it away.")
        return batch.wait

    def lack(self, folder: bytes) -> str:
        """What a batch lacks now, by a look at all of it; "" when it is complete."""
        batch = _Batch(folder, StabilityTracker(self.settle_s))
        self._look(batch, lambda: True)
        return batch.wait.reason if batch.wait is not None else ""

    def _forget(self, now_s: float) -> None:
        """Batches that are complete, or gone, and about which nobody asks any more."""
        for name, batch in list(self._batches.items()):
            over = batch.wait is None or not os.path.isdir(os.path.join(self._root, name))
            if over and now_s - batch.asked_s > FORGET_S:
                del self._batches[name]

    def _look(self, batch: _Batch, go_on: GoOn) -> None:
        """See what the batch lacks, and what its manifest lists."""
        reason = ""
        if self._settings.batch == "marker":
            there = os.path.lexists(os.path.join(self._root, batch.folder, self._own))
            reason = "" if there else f"Its batch waits for the file {self._settings.batch_marker}."
        elif self._settings.batch == "count":
            count, wanted = self._pictures(batch, go_on), self._settings.batch_count
            reason = "" if count >= wanted else f"Its batch has {count} of {wanted} pictures."
        else:
            writing = self._is_being_written(batch)
            batch.wait, batch.listed = self._compare(batch, go_on)
            if writing:  # its files settle meanwhile
                rest = f"{self._settings.batch_manifest} of its batch must be quiet first."
                batch.wait = NotTaken(FileState.SETTLING, rest)
            return
        batch.wait = _blocked(reason) if reason else None

    def _compare(self, batch: _Batch, go_on: GoOn) -> tuple[NotTaken | None, frozenset[bytes]]:
        name = self._settings.batch_manifest
        try:
            listed = self._listed(batch)
        except FileNotFoundError:
            return _blocked(f"Its batch waits for {name}."), frozenset()
        except (OSError, ValueError) as error:
            why = in_words(error) if isinstance(error, OSError) else error
            return _blocked(f"{name} of its batch cannot be read ({why}). Correct it."), frozenset()
        return self._differences(batch, listed, go_on), frozenset(listed)

    def _differences(self, batch: _Batch, listed: Mapping[bytes, str], go_on: GoOn) -> NotTaken | None:
        name = self._settings.batch_manifest
        batch.hashes = {path: known for path, known in batch.hashes.items() if path in listed}
        found = collections.defaultdict[str, list[bytes]](list)
        for path, sha256 in listed.items():
            found[self._compared(batch, path, sha256, go_on)].append(path)
        wrong = {what: found[what] for what in ("missing", "unreadable", "not as listed") if found[what]}
        if wrong:
            told = "; ".join(self._some(what, paths) for what, paths in wrong.items())
            cut = any(len(paths) > self._named for paths in wrong.values())
            rest = " `photochrom why` of its folder names all." if cut else ""
            return _blocked(f"Its batch is not what {name} says: {told}.{rest}")
        if not found["settling"]:
            return None
        # quiet files settle without a further event: they are asked about again after the settle time
        rest = f"Its batch has files that must be quiet first: {self._some('settling', found['settling'])}."
        return NotTaken(FileState.SETTLING, rest)

    def _compared(self, batch: _Batch, path: bytes, sha256: str, go_on: GoOn) -> str:
        try:
            found = self._sha256(batch, path, go_on)
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        except OSError:
            return "unreadable"
        if found is None:
            return "settling"
        return "as listed" if found == sha256 else "not as listed"

    def _some(self, what: str, paths: list[bytes]) -> str:
        more = len(paths) - self._named
        rest = f" and {more} more" if more > 0 else ""
        return f"{what}: {', '.join(display(path) for path in paths[: self._named])}{rest}"

    def _is_being_written(self, batch: _Batch) -> bool:
        """Whether the manifest may still grow: sha256sum reads long between two lines."""
        try:
            fd = open_below(self._root, batch.folder + b"/" + self._own)
        except OSError:
            return False  # another matter
        try:
            batch.settling.observe(self._own, Stamp.of(os.fstat(fd)), time.monotonic())
            return not batch.settling.is_quiet(self._own, time.monotonic()) or intake.has_writer(fd)
        finally:
            os.close(fd)

    def _listed(self, batch: _Batch) -> dict[bytes, str]:
        """What the manifest lists beside itself.

        Raises:
            OSError: it is not there, or cannot be read.
            ValueError: it is no manifest.
        """
        with os.fdopen(open_below(self._root, batch.folder + b"/" + self._own), "rb") as file:
            content = file.read(MANIFEST_MAX_BYTES + 1)
        if len(content) > MANIFEST_MAX_BYTES:
            raise ValueError(f"it has more than {MANIFEST_MAX_BYTES >> 20} MiB")
        listed = parse_manifest(content)
        listed.pop(self._own, None)  # `sha256sum * > SHA256SUMS` lists it as it was when it was empty
        return listed

    def _sha256(self, batch: _Batch, below: bytes, go_on: GoOn) -> str | None:
        """Of a file's bytes, read once as long as it is not touched; None while it settles.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        folder = os.path.join(self._root, batch.folder)
        stamp = Stamp.of(status := os.lstat(os.path.join(folder, below)))
        if not stat.S_ISREG(status.st_mode):  # a device may be read without end
            raise OSError(errno.EINVAL, "no regular file")
        known = batch.hashes.get(below)
        if known is not None and known[0] == stamp:
            return known[1]
        batch.settling.observe(below, stamp, time.monotonic())
        if not batch.settling.is_quiet(below, time.monotonic()):
            return None
        fd = open_below(folder, below)
        try:
            sha256 = intake.hashed(fd, go_on)
        finally:
            os.close(fd)
        if sha256 is None:
            raise _Stopped
        batch.settling.forget(below)
        batch.hashes[below] = (stamp, sha256)
        return sha256

    def _pictures(self, batch: _Batch, go_on: GoOn) -> int:
        """How many files of the batch the watcher would take as pictures."""
        count = 0
        for listing in scan.walk(self._root, batch.folder):
            if not go_on():
                raise _Stopped
            count += sum(self._is_picture(batch, path) for path in listing.files)
        return count

    def _is_picture(self, batch: _Batch, path: bytes) -> bool:
        """Whether the watcher would take a file, by its name or its first bytes."""
        if intake.promises_picture(path):
            return True
        try:
            stamp = Stamp.of(os.lstat(os.path.join(self._root, path)))
            known = batch.pictures.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            fd = open_below(self._root, path)
        except OSError:
            return False
        try:
            told = intake.is_picture(fd, path)
        except OSError:
            return False
        finally:
            os.close(fd)
        batch.pictures[path] = (stamp, told)
        return told


def _blocked(reason: str) -> NotTaken:
    return NotTaken(FileState.BLOCKED, reason)
