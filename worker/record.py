"""The record, opened by somebody who asks: a question creates nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from worker.db import Database, missing_file, open_database, refuse_unmigrated
from worker.errors import DatabaseUnusable
from worker.settings import Settings


@contextmanager
def record(settings: Settings) -> Iterator[Database]:
    """The database of this installation, which must be there already: a question creates nothing."""
    try:
        file = missing_file(settings.database)
    except OSError as error:
        raise DatabaseUnusable(
            f"The database in {settings.state_dir} may not be looked at ({error.strerror}). Ask as a user who may."
        ) from error
    if file is not None:
        raise DatabaseUnusable(
            f"There is no database at {file}. Start `photochrom up` first, or name the right --state-dir."
        )
    database = open_database(settings.database)
    refuse_unmigrated(database)
    try:
        yield database
    finally:
        database.dispose()
