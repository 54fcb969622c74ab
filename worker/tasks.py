"""What the queue can ask for: each task parses its message and calls one function.

The colouring itself is imported where it is called: the scheduler and a worker's first process, which only hand out
work, stay without TensorFlow.
"""

import ctypes
import os
import signal
import sys
import threading
import weakref
from typing import Any, Final

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    task_failure,
    worker_process_init,
    worker_ready,
    worker_shutting_down,
)
from celery.worker.request import Request

from worker import jobs, log, queue, recovery
from worker.attention import Attention
from worker.messages import Door, forget_what_is_foreign
from worker.settings import TRAINER, load

PR_SET_PDEATHSIG = 1
#: who started this worker; and how long one that has lost it may take to end what it has in hand, as long as `up` waits
_PARENT: Final = os.getppid()
ORPHAN_S: Final = 12.0

queue.app.steps["consumer"].add(Attention)
queue.app.steps["consumer"].add(Door)


class InHand(Request):  # type: ignore[misc]
    """A message that a colouring process has; Celery's own word of a lost one does not name the process."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """In the worker's first process: that process has begun with it."""
        _in_hand[self.id] = self
        super().on_accepted(pid, time_accepted)


#: by the message's id, as long as Celery keeps it
_in_hand: Final = weakref.WeakValueDictionary[str, InHand]()


@queue.app.task(name=queue.COLORIZE, Request=InHand)
def colorize(job_id: int) -> None:
    """Colour one scan."""
    from worker import pipeline

    pipeline.run(job_id)


@queue.app.task(name=queue.CURATE, acks_late=False)
def curate() -> None:
    """Check curated photos for a while."""
    from worker import curation, pipeline

    bench = pipeline.prepare()
    curation.check_waiting(bench.database, bench.settings)


@queue.app.task(name=queue.RETRAIN, acks_late=False, time_limit=queue.RETRAIN_LIMIT_S)
def retrain(trigger: str = "schedule") -> None:
    """Do a retraining run, or the rest of an interrupted one, or nothing."""
    from worker import retrain_commands

    retrain_commands.do(trigger)


@queue.app.task(name=queue.TIDY, acks_late=False)
def tidy() -> None:
    """Remove what dead workers left half-written in the output folders."""
    recovery.tidy()


@task_failure.connect(sender=colorize)
def _lost(task_id: str, args: Any = (), exception: BaseException | None = None, **_: Any) -> None:
    """In a worker's first process: one of its colouring processes died or is ended, and how is known here alone."""
    if (message := _in_hand.get(task_id)) is None:
        return
    if isinstance(exception, WorkerLostError):
        recovery.take_back(int(args[0]), message.worker_pid, str(exception))
    elif isinstance(exception, TimeLimitExceeded):
        how = f"ended at the time limit of {load().job_limit_s:g} s, setting job_limit_s"
        recovery.take_back(int(args[0]), message.worker_pid, how, jobs.TOO_LONG)


@task_failure.connect(sender=retrain)
def _interrupted(exception: BaseException | None = None, **_: Any) -> None:
    """In a trainer's first process: the training one died; the next takes the run on, which counts how often."""
    if isinstance(exception, WorkerLostError):
        queue.go_on_with_training()


@celeryd_after_setup.connect
def _look_through_the_broker(**_: Any) -> None:
    """In a worker's first process, before it connects."""
    forget_what_is_foreign()


@worker_ready.connect
def _ready(**_: Any) -> None:
    """A trainer goes on by itself with what an earlier one left, instead of waiting for the next schedule."""
    if TRAINER in os.environ:
        queue.go_on_with_training()


@worker_shutting_down.connect
def _end_in_time(**_: Any) -> None:
    """In a worker's first process: whose supervisor was killed is asked to end, and nobody is left to insist on it.

    What it waits for may never come: a scan that hangs, an answer of the broker, which ends too. Its own go with it.
    """
    if os.getppid() != _PARENT:
        end = threading.Timer(ORPHAN_S, os.kill, (os.getpid(), signal.SIGKILL))
        end.daemon = True
        end.start()


@setup_logging.connect
def _logging(**_: Any) -> None:
    log.configure(load().log_level)


@worker_process_init.connect
def _prepare(**_: Any) -> None:
    # An orphan would go on with a job whose lease nobody renews.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    training = TRAINER in os.environ
    os.nice(15 if training else 5)  # the machine stays usable for the people at it, and colouring goes before training
    if training:
        return
    from worker import pipeline

    pipeline.prepare()  # where that fails (the database is away), it is done again with the first job
