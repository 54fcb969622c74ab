"""While a scan is worked on its lease is renewed; it is given back when a folder that it needs does not answer.

A share whose server is gone holds whoever touches it, for ever. What waits there is ended by nothing but the end of its
process; and until then this process colours no scan of any other folder.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from functools import partial

import sqlalchemy as sa

from worker import jobs, strikes
from worker.answers import NoAnswer, ask
from worker.db import Database
from worker.errors import JobMoved, OutputBlocked, PhotochromError, ScanUnreadable
from worker.settings import Settings
from worker.tables import Job, display

logger = logging.getLogger(__name__)


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
    done = threading.Event()

    def hold() -> None:
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

    thread = threading.Thread(target=hold, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


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
