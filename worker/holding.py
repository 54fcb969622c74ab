"""While a scan is worked on its lease is renewed; it is given back when a folder that it needs does not answer.

A share whose server is gone holds whoever touches it, for ever. What waits there is ended by nothing but the end of its
process; and until then this process colours no scan of any other folder.
"""

import _thread
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker import jobs, strikes
from worker.answers import NoAnswer, ask
from worker.database_errors import advice_on, first_line
from worker.db import Database
from worker.errors import JobMoved, OutputBlocked, PhotochromError, ScanUnreadable
from worker.settings import Settings
from worker.tables import Job, display

logger = logging.getLogger(__name__)

#: a thread that has not begun after so long will not: less than a lease lasts
BEGINS_S: Final = 10.0
#: from one try to record something to the next while the database is away; shorter than from sweep to sweep
AGAIN_S: Final = 0.5


@contextlib.contextmanager
def held(database: Database, settings: Settings, job: Job, folders: tuple[bytes, bytes]) -> Iterator[None]:
    """Hold a claimed job in the background until the work ends; raises what the thread cannot start for.

    Args:
        database: where its row is.
        settings: for lease and heartbeat.
        job: claimed.
        folders: the one it reads from and the one it writes to. When one of them has not answered for as long as a
            lease lasts, the job goes back into the queue without a strike, and this process ends.
    """
    begun, done, ended = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        try:
            renew()
        finally:
            ended.set()

    def renew() -> None:
        """Until the work has ended, or another worker has the claim."""
        while not done.wait(settings.heartbeat_s):
            try:
                with database.writing() as session:
                    jobs.renew(session, job, settings.lease_s)
                if (silence := _silence(folders, settings)) is not None:
                    _give_back(database, settings, job, silence)
            except JobMoved:
                return  # the fence stops the work where it would do harm
            except (sa.exc.SQLAlchemyError, MemoryError, RuntimeError):  # the next may find it, or memory
                logger.warning("lease_not_renewed", exc_info=True)

    # threading's own `start` waits for ever for a thread whose first step found no memory (python/cpython#140746)
    _thread.start_new_thread(hold, ())
    if not begun.wait(BEGINS_S):
        raise MemoryError("the thread that renews the lease did not begin")
    try:
        yield
    finally:
        done.set()
        ended.wait()


def settle(database: Database, move: Callable[[Session], Job]) -> Job:
    """Record what became of a claimed job, as soon as the database answers.

    Until then this process could claim nothing else either; and a lease that runs out is a strike against the scan.

    Raises:
        JobMoved: the claim is void.
    """
    while True:
        try:
            with database.writing() as session:
                return move(session)
        except sa.exc.OperationalError as error:
            if not advice_on(error):  # it may be our own statement
                raise
            logger.warning("record_away", extra={"why": first_line(error)})
            time.sleep(AGAIN_S)


def _silence(folders: tuple[bytes, bytes], settings: Settings) -> PhotochromError | None:
    """Why the job cannot go on, if one of its folders does not answer."""
    for folder, kind in zip(folders, (ScanUnreadable, OutputBlocked), strict=True):
        try:
            ask(folder, partial(os.path.exists, folder), settings.heartbeat_s)
        except NoAnswer as error:
            if error.for_s >= settings.lease_s:
                return kind(
                    f"{display(folder)} does not answer (for {error.for_s:.0f} s): its server, its disk or the network "
                    "is down. The job goes on by itself."
                )
    return None


def _give_back(database: Database, settings: Settings, job: Job, why: PhotochromError) -> None:
    with database.writing() as session:
        jobs.fail(session, job, why, strikes.in_force(settings))
    logger.warning("given_back", extra={"why": str(why)})
    logging.shutdown()
    os._exit(os.EX_TEMPFAIL)  # the row is settled, so this end is nobody's strike; the pool makes a fresh process
