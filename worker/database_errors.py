"""What an error of the database means to a person: what failed, and what to do. What was committed is never lost."""

import sqlite3
from collections.abc import Mapping
from typing import Final

from sqlalchemy.exc import DBAPIError

from worker.errors import DatabaseUnusable

_FULL: Final = "Its disk is full: free some space, then do this again."
_LOCKED: Final = "Another program holds it: wait for that to end, then do this again."
_DENIED: Final = "Grant this user the right to read and write it and its folder."
_AWAY: Final = "Start the server or the network, or correct database_url."
_BROKEN: Final = "Restore its file from a backup, or name another database; originals and derivatives are as they were."
_DISK: Final = "Check the disk that it lies on, then do this again."
_LOGIN: Final = "Correct the user, password or name of the database in database_url."

#: SQLite's primary result codes (sqlite.org/rescode.html)
_BY_RESULT: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_READONLY: _DENIED,
    sqlite3.SQLITE_CANTOPEN: _DENIED,
    sqlite3.SQLITE_CORRUPT: _BROKEN,
    sqlite3.SQLITE_NOTADB: _BROKEN,
    sqlite3.SQLITE_IOERR: _DISK,
}
#: PostgreSQL's SQLSTATE, or the class that it begins with (appendix A of its manual)
_BY_STATE: Final[Mapping[str, str]] = {
    "53100": _FULL,
    "55P03": _LOCKED,
    "40P01": _LOCKED,
    "57014": _LOCKED,
    "42501": _DENIED,
    "25006": _DENIED,
    "28": _LOGIN,
    "3D": _LOGIN,
    "58": _DISK,
    "XX": _BROKEN,
    "08": _AWAY,
    "53": _AWAY,
    "57": _AWAY,
}


def in_words(error: DBAPIError) -> DatabaseUnusable:
    """The one line that a command says of an error of the database."""
    advice = advice_on(error) or "`photochrom doctor` looks at what is wrong."
    return DatabaseUnusable(f"The database failed: {first_line(error)}. {advice} Nothing that was recorded is lost.")


def advice_on(error: BaseException) -> str:
    """What to do about it, in one sentence; empty when its kind says nothing."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    result = getattr(cause, "sqlite_errorcode", None)
    if result is not None:
        return _BY_RESULT.get(result & 0xFF, "")  # the low byte is the primary code
    if not isinstance(error, DBAPIError) or isinstance(cause, sqlite3.Error):
        return ""
    state = getattr(cause, "sqlstate", None)
    if state is None:  # the server has said nothing: it was not reached, or went away
        return _AWAY
    return _BY_STATE.get(state, _BY_STATE.get(state[:2], ""))


def first_line(error: BaseException) -> str:
    """What the database's own library says, without SQL and parameters."""
    cause = error.__cause__ or error
    return str(cause).strip().splitlines()[0].rstrip(".") if str(cause).strip() else type(cause).__name__
