"""A lack of memory is known whoever says so; nothing else is taken for one."""

import errno
import os
import sqlite3

import cv2
import numpy as np
import psycopg
import pytest
from sqlalchemy.exc import DataError, OperationalError

from worker import meanings, proof
from worker.errors import MemoryExceeded, OutputBlocked, ScanBroken, Settles, VerifyFailed
from worker.output_folder import output_errors


def _cleaned_up_badly() -> Exception:
    try:
        try:
            raise MemoryError
        finally:
            raise ValueError("clean-up failed")
    except ValueError as error:
        return error


class _ResourceExhaustedError(Exception):
    """As TensorFlow's: its type tells, whatever it says."""


_ResourceExhaustedError.__name__ = "ResourceExhaustedError"
_ResourceExhaustedError.__module__ = "tensorflow.python.framework.errors_impl"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 1 TiB for an array"),
        OSError(errno.ENOMEM, "no matter what"),
        _ResourceExhaustedError("no matter what"),
        _cleaned_up_badly(),
        ValueError("VipsJpeg: out of memory -- size == 1MB"),
        ValueError("VipsJpeg: Insufficient memory (case 4)"),
        ValueError("tiff2vips: No space for data buffer at scanline 7"),
        RuntimeError("opj_decode failed: Not enough memory to decode tile"),
        RuntimeError("Memory allocation failed"),
        RuntimeError("Operation received an exception:Status: 1, message: could not create a memory object"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("libvips.so.42: failed to map segment from shared object"),
    ],
    ids=repr,
)
def test_memory_that_is_not_there_is_no_broken_file(error: Exception) -> None:
    named = meanings.from_exception(error)
    assert (named.code, named.settles) == ("memory_limit", Settles.RETRY)
    assert "job_memory_mib" in str(named)


def test_a_lack_of_memory_is_told_in_one_line() -> None:
    error = ValueError("unable to fetch from region\n  vips_tracked: out of memory -- size == 1MB\n")
    told = str(meanings.from_exception(error))
    assert "may (unable to fetch from region vips_tracked: out of memory -- size == 1MB). Raise" in told
    assert "(MemoryError)" in str(meanings.out_of_memory(MemoryError()))


def test_opencv_says_it_by_its_code() -> None:
    with pytest.raises(cv2.error) as raised:
        cv2.resize(np.zeros((2, 2), np.uint8), (0, 0))
    other = raised.value
    assert not meanings.wants_memory(other)
    other.code = -4  # StsNoMem
    assert meanings.wants_memory(other)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("memory of a scanner"),
        ScanBroken("Its title says: out of memory"),
        OSError(errno.EACCES, "Permission denied", "out of memory.png"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=repr,
)
def test_other_errors_are_not_about_memory(error: Exception) -> None:
    assert not meanings.wants_memory(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EBADF])
def test_an_error_of_the_system_is_told_by_name_and_words(number: int) -> None:
    told = str(meanings.from_os_error(OSError(number, os.strerror(number), "/out/a.tif")))
    assert f"{errno.errorcode[number]}: {os.strerror(number)} ('/out/a.tif')" in told
    assert meanings.in_words(OSError("no name for it")) == "no name for it"


def test_a_database_that_fails_is_no_strike_against_the_scan() -> None:
    lost = psycopg.OperationalError("server closed the connection unexpectedly\n\tbefore or while processing")
    error = OperationalError("UPDATE secret", {}, lost)
    error.__cause__ = lost  # as SQLAlchemy raises it
    named = meanings.from_exception(error)
    assert (named.code, named.settles) == ("record_away", Settles.WAIT)
    told = "The database failed: server closed the connection unexpectedly. The job goes on by itself."
    assert str(named) == told
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    assert meanings.from_exception(OperationalError("BEGIN", {}, locked)).code == "record_away"


def test_a_statement_that_the_database_refuses_is_a_strike() -> None:
    unknown = sqlite3.OperationalError("no such column: secret")
    unknown.sqlite_errorcode = sqlite3.SQLITE_ERROR
    assert meanings.from_exception(OperationalError("SELECT secret", {}, unknown)).settles is Settles.RETRY
    refused = psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    assert meanings.from_exception(DataError("INSERT", {}, refused)).settles is Settles.RETRY


def test_an_error_without_a_name_keeps_its_words() -> None:
    named = meanings.from_exception(ValueError("memory of a scanner"))
    assert (named.code, str(named)) == ("error", "Unexpected ValueError: memory of a scanner")


def test_an_error_of_the_system_is_named_by_its_number() -> None:
    codes = {
        number: meanings.from_os_error(OSError(number, "x")).code
        for number in (errno.ENOMEM, errno.ENOSPC, errno.EROFS, errno.EIO, errno.EBADF)
    }
    assert list(codes.values()) == ["memory_limit", "output_full", "output_blocked", "unreadable", "error"]


def test_a_lack_of_memory_is_not_the_output_folder_s_fault() -> None:
    """As a blocked output it would be tried for ever."""
    with pytest.raises(MemoryExceeded), output_errors():
        raise OSError(errno.ENOMEM, "Cannot allocate memory")
    with pytest.raises(OutputBlocked), output_errors():
        raise OSError(errno.EACCES, "Permission denied")


def test_a_lack_of_memory_is_not_the_derivative_s_fault() -> None:
    with pytest.raises(MemoryExceeded), proof._as_verify_failed():
        raise MemoryExceeded("It takes more memory than one scan may.")
    with pytest.raises(VerifyFailed), proof._as_verify_failed():
        raise ScanBroken("It cannot be decoded.")
