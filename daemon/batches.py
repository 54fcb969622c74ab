r"""Batches: a folder right below a root is held back until it is complete, and then taken as a whole.

Archives deliver boxes. What tells that a box is complete is the root's to say: a marker file that somebody puts into it
when it is, a count of pictures, or a manifest of checksums as sha256sum(1) writes them. Nothing about this is kept:
every answer comes from a look at the folder, so that a restart changes nothing.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from typing import Final

from daemon import scan
from daemon.intake import PICTURE_SUFFIXES
from worker.files import Stamp
from worker.originals import open_below
from worker.settings import RootSettings
from worker.tables import display

#: a batch is looked at again after so long; many files ask at the same time
LOOK_AGAIN_S: Final = 2.0
#: most missing or wrong files that a sentence names
NAMED: Final = 5
MANIFEST_MAX_BYTES: Final = 64 << 20


class Gate:
    """Says which files of a root have to wait for the rest of their batch, and for what."""

    def __init__(self, root: RootSettings) -> None:
        self._root = os.fsencode(root.path)
        self._settings = root
        self._own = os.fsencode({"marker": root.batch_marker, "manifest": root.batch_manifest}.get(root.batch, ""))
        self._looked: dict[bytes, tuple[float, str, frozenset[bytes]]] = {}
        self._hashes: dict[bytes, tuple[Stamp, str]] = {}

    def held(self, path: bytes) -> str:
        """Why a file has to wait, in one sentence; empty when it need not.

        Args:
            path: below the root. One that lies in the root itself belongs to no batch.
        """
        batch, slash, below = path.partition(b"/")
        if not slash or below == self._own:
            return ""
        at_s, reason, listed = self._looked.get(batch, (-float("inf"), "", frozenset[bytes]()))
        if time.monotonic() - at_s > LOOK_AGAIN_S:
            reason, listed = self._look(batch)
            self._looked[batch] = (time.monotonic(), reason, listed)
        if not reason and self._settings.batch == "manifest" and below not in listed:
            return f"It is not in {self._settings.batch_manifest} of its batch. Add it there, or take it away."
        return reason

    def _look(self, batch: bytes) -> tuple[str, frozenset[bytes]]:
        """Why the batch is not complete, and what its manifest lists."""
        folder = os.path.join(self._root, batch)
        if self._settings.batch == "marker":
            there = os.path.lexists(os.path.join(folder, self._own))
            return ("" if there else f"Its batch waits for the file {self._settings.batch_marker}."), frozenset()
        if self._settings.batch == "count":
            count, wanted = sum(1 for _ in _pictures(self._root, batch)), self._settings.batch_count
            return ("" if count >= wanted else f"Its batch has {count} of {wanted} pictures."), frozenset()
        return self._compare(folder)

    def _compare(self, folder: bytes) -> tuple[str, frozenset[bytes]]:
        name = self._settings.batch_manifest
        try:
            fd = os.open(os.path.join(folder, self._own), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                listed = dict(parse_manifest(file.read(MANIFEST_MAX_BYTES)))
        except FileNotFoundError:
            return f"Its batch waits for {name}.", frozenset()
        except (OSError, ValueError) as error:
            return f"{name} of its batch cannot be read ({error}). Correct it.", frozenset()
        missing, wrong = [], []
        for path, sha256 in listed.items():
            found = self._sha256(folder, path)
            if found is None:
                missing.append(path)
            elif found != sha256:
                wrong.append(path)
        faults = [_named("missing", missing), _named("not as listed", wrong)]
        told = "; ".join(fault for fault in faults if fault)
        return (f"Its batch is not what {name} says: {told}." if told else ""), frozenset(listed)

    def _sha256(self, folder: bytes, below: bytes) -> str | None:
        """Of a file's bytes, read once as long as it is not touched; None when it is not there."""
        path = os.path.join(folder, below)
        try:
            stamp = Stamp.of(os.lstat(path))
            known = self._hashes.get(path)
            if known is None or known[0] != stamp:
                with os.fdopen(open_below(folder, below), "rb") as file:
                    known = self._hashes[path] = (stamp, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError:
            return None
        return known[1]


def parse_manifest(content: bytes) -> Iterator[tuple[bytes, str]]:
    r"""(path, sha256) of each line that sha256sum(1) wrote: `<64 hex>  name`; ` *` is binary, `\` leads escaped names.

    Raises:
        ValueError: a line is none of these, or names a path that leads out of the batch.
    """
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        escaped = line.startswith(b"\\")
        digest, separator, path = line.removeprefix(b"\\").partition(b" ")
        if path[:1] not in {b" ", b"*"} or not separator or len(digest) != 64:
            raise ValueError(f"line {number} is not as sha256sum writes it")
        path = path[1:].removeprefix(b"./")
        if escaped:
            path = re.sub(rb"\\(.)", lambda found: {b"n": b"\n", b"r": b"\r"}.get(found[1], found[1]), path)
        if path.startswith(b"/") or b".." in path.split(b"/"):
            raise ValueError(f"line {number} leads out of the folder")
        yield path, digest.decode("ascii", "replace").lower()


def _pictures(root: bytes, batch: bytes) -> Iterator[bytes]:
    """Files of a batch whose names promise a picture."""
    for listing in scan.walk(root, batch):
        yield from (path for path in listing.files if os.path.splitext(path)[1].lower() in PICTURE_SUFFIXES)


def _named(what: str, paths: list[bytes]) -> str:
    if not paths:
        return ""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"{what}: {', '.join(display(path) for path in paths[:NAMED])}{more}"
