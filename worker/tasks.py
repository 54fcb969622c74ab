"""What the queue can ask for: each task parses its message and calls one function."""

import ctypes
import os
import signal
import sys
from typing import Any

from celery.signals import setup_logging, worker_process_init

from worker import log, pipeline, queue
from worker.settings import load

PR_SET_PDEATHSIG = 1


@queue.app.task(name=queue.COLORIZE)
def colorize(job_id: int) -> None:
    """Colour one scan."""
    pipeline.run(job_id)


@queue.app.task(name=queue.TIDY, acks_late=False)
def tidy() -> None:
    """Remove what dead workers left half-written in the output folders."""
    pipeline.tidy()


@setup_logging.connect
def _logging(**_: Any) -> None:
    log.configure(load().log_level)


@worker_process_init.connect
def _prepare(**_: Any) -> None:
    # An orphan would go on with a job whose lease nobody renews.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(5)  # the machine stays usable for the people at it
    pipeline.prepare()
