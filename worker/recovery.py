"""After a death: jobs go back into the queue, half-written files go away. Light enough for every process."""

import logging
import os
import socket
from functools import partial

import sqlalchemy as sa

from worker import jobs, publish, strikes
from worker.answers import NoAnswer, ask
from worker.db import open_database
from worker.errors import PhotochromError
from worker.settings import load
from worker.tables import Root, RootState, absolute, display

logger = logging.getLogger(__name__)

TIDY_OLDER_THAN_S = 24 * 3600


def take_back(job_id: int, pid: int, how: str, cause: str = jobs.LOST) -> None:
    """A colouring process of this worker died, or is being ended, with a job in hand: back into the queue at once.

    What it left half-written is removed. If that fails, the lease sweep does it when the lease runs out. Its death is
    told late: where another process of this worker has the job by then, that one keeps it.

    Args:
        job_id: what it may have had in hand.
        pid: the process.
        how: its end, as the pool tells it.
        cause: `jobs.LOST` or `jobs.TOO_LONG`.
    """
    settings = load()
    try:
        database = open_database(settings.database)
        with database.writing() as session:
            rules, name = strikes.in_force(settings), f"{worker_name()}{pid}:"
            taken = jobs.expire(session, rules, worker=name, job_id=job_id, how=how.rstrip("."), cause=cause)
            left = [(session.get_one(Root, job.root).output, os.path.dirname(job.path), job.claim_no) for job in taken]
        for output, directory, claim_no in left:
            remove = partial(publish.remove_left_behind, output, directory, job_id=job_id, claim_no=claim_no + 1)
            ask(absolute(output, directory), remove)
        database.dispose()
    except (PhotochromError, sa.exc.SQLAlchemyError, NoAnswer):
        logger.warning("not_taken_back", extra={"job_id": job_id}, exc_info=True)


def worker_name() -> str:
    """What the names of this worker's colouring processes begin with: its first process has set it for all."""
    return f"{os.environ.get('PHOTOCHROM_WORKER') or socket.gethostname()}:"


def tidy() -> None:
    """Remove temporary files that dead workers left in the output folders.

    The walk through a large output goes on beside the next jobs, and one that does not answer is left for another time.
    """
    database = open_database(load().database)
    with database.reading() as session:
        there = session.scalars(sa.select(Root).where(Root.state != RootState.OFFLINE))
        outputs = [root.output for root in there if root.output]
    database.dispose()
    for output in outputs:
        try:
            ask(output, partial(_sweep, output), what="tidy")
        except NoAnswer as error:
            logger.info("tidying_not_ended", extra={"path": display(output), "why": str(error)})


def _sweep(output: bytes) -> None:
    for path in publish.sweep_temporaries(output, older_than_s=TIDY_OLDER_THAN_S):
        logger.info("temporary_removed", extra={"path": display(absolute(output, path))})
