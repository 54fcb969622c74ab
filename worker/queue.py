"""The Celery app and the sending of job ids. The broker is disposable: what must be done stands in the table.

The daemon sends tasks by the names below and never imports them: importing tasks would load TensorFlow.
"""

import contextlib
import datetime as dt
import logging
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from celery import Celery
from celery.schedules import crontab
from kombu import Queue
from kombu.exceptions import OperationalError

from worker.addresses import without_password
from worker.errors import BrokerUnavailable, UnknownSetting
from worker.settings import Settings, load

logger = logging.getLogger(__name__)

COLORIZE: Final = "photochrom.colorize"
CURATE: Final = "photochrom.curate"
RETRAIN: Final = "photochrom.retrain"
TIDY: Final = "photochrom.tidy"
COLORIZE_QUEUE: Final = "colorize"
TRAIN_QUEUE: Final = "train"
#: Celery on Redis: the lower, the sooner
PRIORITY: Final = {"interactive": 0, "normal": 3, "backlog": 6}
TIDY_EVERY_S: Final = 3600
#: from beat's start to the first time: one that dies again and again never comes to it
FIRST_TIDY_S: Final = 300
#: a scheduled run that no trainer took for so long waits for the next schedule
RETRAIN_EXPIRES_S: Final = 3600
#: beat that starts so long after a schedule's time lets it go
BEAT_LOOKS_BACK_S: Final = 300
#: trigger of a message that starts no new run
RESUME: Final = "resume"
#: caps of its own end a run; this one ends a trainer that hangs
RETRAIN_LIMIT_S: Final = 7 * 24 * 3600
#: a request to check curated photos is renewed long before
CURATE_EXPIRES_S: Final = 60
#: a back-stop only: leases in the table are what recovers a job
LEAST_VISIBILITY_TIMEOUT_S: Final = 3600


def visibility_timeout_s(settings: Settings) -> float:
    """When the broker hands a message to another worker, because it was not acknowledged: never while its job may last.

    It would do no harm: the other worker finds the job claimed and drops the message. But it would be sent for nothing,
    again after each such time.
    """
    return max(LEAST_VISIBILITY_TIMEOUT_S, 2 * settings.job_limit_s)


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration.

    Why these: late acknowledgement with one reserved message, so that a worker holds what it works on and no more; no
    requeue on a lost child, because the broker would do so at once and without counting; no results, no eta, no
    retries, because the row says all that; spawned children, because TensorFlow does not survive a fork.

    Raises:
        BrokerUnavailable: the broker's address cannot be read.
    """
    _refuse_unreadable(settings.broker)
    transport = {
        "visibility_timeout": visibility_timeout_s(settings),
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "queue_order_strategy": "priority",
        "priority_steps": list(range(0, 10, 3)),
        "global_keyprefix": "photochrom:",
    }
    if settings.broker.startswith("redis+socket"):
        transport.pop("socket_keepalive")  # a TCP option, which a unix socket refuses
    return {
        "broker_url": settings.broker,
        "broker_transport_options": transport,
        "visibility_timeout": visibility_timeout_s(settings),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "result_backend": None,
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "task_default_queue": COLORIZE_QUEUE,
        "task_queues": [Queue(COLORIZE_QUEUE), Queue(TRAIN_QUEUE)],
        "task_routes": {COLORIZE: COLORIZE_QUEUE, CURATE: COLORIZE_QUEUE, TIDY: COLORIZE_QUEUE, RETRAIN: TRAIN_QUEUE},
        "task_time_limit": settings.job_limit_s,
        "worker_pool": "prefork",
        "worker_pool_start_method": "spawn",
        "worker_concurrency": settings.worker_processes,
        "worker_prefetch_multiplier": 1,
        "worker_proc_alive_timeout": 120,
        "worker_max_tasks_per_child": 500,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,  # nobody needs it but who means to stop or to choke a worker
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "beat_cron_starting_deadline": BEAT_LOOKS_BACK_S,
        "beat_schedule": _schedule(settings),
        "beat_scheduler": "celery.beat:Scheduler",  # nothing on the disk: Celery's other one keeps its times by pickle
        "include": ["worker.tasks"],
    }


def _refuse_unreadable(url: str) -> None:
    """Before Celery reads it, whose error would show a piece of the password."""
    try:
        urlsplit(url).port  # noqa: B018 - reading it is the check
    except ValueError:
        hint = "In a password, / ? # @ and % must be percent-encoded."
        raise BrokerUnavailable(f"{without_password(url)} is no broker's address. {hint}") from None


def _schedule(settings: Settings) -> dict[str, Any]:
    """What beat sends and when. A missed retraining is not caught up with: its message expires, and the next comes.

    A beat that starts remembers nothing. It looks back a little, so that one that was down for a moment misses no
    schedule; a message that is sent twice by that finds no new photos. The first tidying follows the start soon,
    because some run for less than an hour a day.
    """
    now = dt.datetime.now(dt.UTC)
    last_tidy = now - dt.timedelta(seconds=TIDY_EVERY_S - FIRST_TIDY_S)
    schedule: dict[str, Any] = {"tidy": {"task": TIDY, "schedule": TIDY_EVERY_S, "last_run_at": last_tidy}}
    if settings.retrain_cron:
        try:
            when = crontab.from_string(settings.retrain_cron)
        except (ValueError, TypeError) as error:
            raise UnknownSetting(f"Setting retrain_cron ('{settings.retrain_cron}') is none: {error}.") from error
        looked_at = now - dt.timedelta(seconds=BEAT_LOOKS_BACK_S)
        schedule["retrain"] = {"task": RETRAIN, "schedule": when, "options": {"expires": RETRAIN_EXPIRES_S},
                               "last_run_at": looked_at}  # fmt: skip
    return schedule


app = Celery("photochrom")
app.add_defaults(lambda: celery_settings(load()))


@contextlib.contextmanager
def _broker_errors(advice: str) -> Iterator[None]:
    """A broker that is away as one of our errors, with what becomes of the work."""
    try:
        yield
    except (OperationalError, OSError) as error:
        raise BrokerUnavailable(f"The broker does not answer: {error}. {advice}") from error


def send(job_id: int, priority: int) -> None:
    """Tell the workers of a job. The row must have been committed before.

    Raises:
        BrokerUnavailable: the message was not taken; the row stays, and will be sent later.
    """
    with _broker_errors("Jobs wait in the database."):
        app.send_task(COLORIZE, (job_id,), priority=priority, retry=False)


def ask_for_curation() -> None:
    """Ask a worker to check curated photos for a while; which ones, the table says.

    Raises:
        BrokerUnavailable: the message was not taken.
    """
    with _broker_errors("Photos wait in the database."):
        app.send_task(CURATE, (), priority=PRIORITY["normal"], expires=CURATE_EXPIRES_S, retry=False)


def ask_for_retraining(trigger: str = "detach") -> None:
    """Queue a retraining run; with the trigger `RESUME`, only what is left of an interrupted one.

    Raises:
        BrokerUnavailable: the message was not taken.
    """
    with _broker_errors("Use --now instead of --detach."):
        app.send_task(RETRAIN, (), {"trigger": trigger}, queue=TRAIN_QUEUE, retry=False)


def go_on_with_training() -> None:
    """Let a trainer go on with an interrupted run; without a broker the next schedule does."""
    try:
        ask_for_retraining(RESUME)
    except BrokerUnavailable as error:
        logger.warning("training_not_resumed", extra={"why": str(error)})


def waiting() -> int:
    """Messages that lie in the colouring queue.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    with _broker_errors("Jobs wait in the database."), app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)
        try:
            return int(connection.default_channel.queue_declare(COLORIZE_QUEUE, passive=True).message_count)
        except connection.channel_errors:  # no such queue yet: nothing was ever sent
            return 0
