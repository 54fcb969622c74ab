"""File systems that are mounted below a watched folder: when one is away, an empty folder is in its place."""

import os
from pathlib import Path

from worker import identity, mounts
from worker.db import Database


class Shares:
    """What is, or was, mounted below one root, by the record."""

    def __init__(self, database: Database, name: str, path: bytes) -> None:
        self._database = database
        self._name = name
        self._path = path

    def note(self) -> None:
        """Record what is mounted now, before a file on it is.

        It is never taken back: a mount point that is removed or used is none, whatever the record says.
        """
        there = set(mounts.mounts_below(Path(os.fsdecode(self._path))))
        with self._database.reading() as session:
            known = identity.shares_of(session, self._name)
        if not there <= known:
            with self._database.writing() as session:
                identity.note_shares(session, self._name, there)

    def is_away(self, directory: bytes) -> bool:
        """Whether a directory lay on a share that is not mounted now, so that what is missing there proves nothing."""
        with self._database.reading() as session:
            known = identity.shares_of(session, self._name)
        return mounts.share_away(self._path, directory, known) is not None
