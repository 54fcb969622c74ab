"""Messages as they come off the wire: taken only in the form in which we send them, refused at the door otherwise.

Celery does what a message's headers say: a time limit of a moment kills what works on it, one that is no number kills
the worker itself, which then gets the message anew, for ever. So whoever can write to the broker could stop everything
by one message. A job whose message is refused is sent again from its row. Of time limits, which beat sends along with
every task, none is heeded.
"""

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from celery import bootsteps

from worker import queue

logger = logging.getLogger(__name__)

LONGEST_BYTES: Final = 16_384
_LARGEST_ID: Final = 2**63 - 1  # of both databases
_LONGEST_WHY_CHARS: Final = 200
_LONGEST_NAME_CHARS: Final = 100
#: headers that our messages never make use of
_UNUSED: Final = ("eta", "shadow", "retries", "group", "stamps", "stamped_headers")


def _is_empty(arguments: list[Any], named: Mapping[str, Any]) -> bool:
    return not arguments and not named


def _is_job(arguments: list[Any], named: Mapping[str, Any]) -> bool:
    return not named and len(arguments) == 1 and type(arguments[0]) is int and 0 < arguments[0] <= _LARGEST_ID


def _is_trigger(arguments: list[Any], named: Mapping[str, Any]) -> bool:
    return not arguments and named.keys() <= {"trigger"} and all(isinstance(word, str) for word in named.values())


#: each task, and whether arguments are such as it is sent with
_TASKS: Final[Mapping[str, Callable[[list[Any], Mapping[str, Any]], bool]]] = {
    queue.COLORIZE: _is_job, queue.CURATE: _is_empty, queue.TIDY: _is_empty, queue.RETRAIN: _is_trigger,
}  # fmt: skip


def refusal(message: Any) -> str:
    """Why a message (kombu's) is not taken; empty for one like ours."""
    try:
        return _refusal(message)
    except Exception as error:  # noqa: BLE001 - whatever is in it, it must not end the worker
        return f"{type(error).__name__}: {error}"[:_LONGEST_WHY_CHARS]


def _refusal(message: Any) -> str:
    headers, name = message.headers, message.headers["task"]
    if not isinstance(name, str) or name not in _TASKS:
        return f"unknown task {name!r}"[:_LONGEST_WHY_CHARS]
    if len(message.body) > LONGEST_BYTES:
        return f"{len(message.body)} bytes"
    arguments, named, embedded = message.decode()
    expires, its_id = headers.get("expires"), headers["id"]
    plain = isinstance(arguments, list) and isinstance(named, dict)
    reasons = {
        "its arguments": not plain or not _TASKS[name](arguments, named),
        "its id": not isinstance(its_id, str) or not its_id.isprintable() or len(its_id) > _LONGEST_NAME_CHARS,
        "its time of expiry": expires is not None and dt.datetime.fromisoformat(expires) is None,
        "tasks to follow": any((embedded or {}).values()),
        **{f"the header {header}": bool(headers.get(header)) for header in _UNUSED},
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


class Door(bootsteps.StartStopStep):  # type: ignore[misc]
    """Lets a worker's first process see only messages that are like ours."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Stand before the consumer's own handler, which it makes at every connection."""

        def handler() -> Callable[[Any], None]:
            handle = type(consumer).create_task_handler(consumer)

            def received(message: Any) -> None:
                if why := refusal(message):
                    logger.error("message_refused", extra={"why": why})
                    message.reject_log_error(logger, consumer.connection_errors)
                    return
                # beat sends its own settings' along: what holds for work here is for the settings here to say
                message.headers["timelimit"] = [None, None]
                handle(message)

            return received

        consumer.create_task_handler = handler
