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

import redis
from celery import bootsteps
from kombu.exceptions import OperationalError
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from worker import queue

logger = logging.getLogger(__name__)

LONGEST_BYTES: Final = 16_384
#: of a message with its envelope, before anything of it is parsed
LONGEST_RAW_BYTES: Final = 65_536
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


def foreign(raw: bytes, channel: Any) -> str:
    """Why bytes from a queue are nothing that kombu could make a message of; empty for what it can."""
    return _why(_foreign, raw, channel)


def forget_what_is_foreign() -> None:
    """Take away what stands in the broker under our names and is not as kombu keeps it: no worker could start with it.

    Nothing is lost: jobs are sent again from their rows. A broker that is away is left to those who wait for it.
    """
    try:
        with queue.app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
            _forget(connection.default_channel)
    except (OperationalError, redis.RedisError, OSError) as error:
        logger.debug("broker not looked through", exc_info=error)


def _forget(channel: Any) -> None:
    client, prefix = redis.Redis(connection_pool=channel.pool), channel.global_keyprefix
    unacked, index = prefix + channel.unacked_key, prefix + channel.unacked_index_key
    kinds = {unacked: b"hash", index: b"zset"}
    for name in (queue.COLORIZE_QUEUE, queue.TRAIN_QUEUE):
        kinds |= {prefix + channel._q_for_pri(name, step): b"list" for step in channel.priority_steps}
        kinds[prefix + channel.keyprefix_queue % name] = b"set"
    for key, kind in kinds.items():
        if (found := client.type(key)) not in (kind, b"none"):
            logger.error("broker_cleared", extra={"why": f"{key!r} is a {found!r}, not a {kind!r}"})
            client.delete(key)
    for tag, raw in client.hscan_iter(unacked):
        if why := _why(_foreign_unacked, raw):
            logger.error("message_refused", extra={"why": why})
            client.hdel(unacked, tag)
            client.zrem(index, tag)


def _foreign_unacked(raw: bytes) -> str:
    _message, _exchange, _routing_key = loads(bytes_to_str(raw))
    return ""


def refusal(message: Any) -> str:
    """Why a message (kombu's) is not taken; empty for one like ours."""
    return _why(_refusal, message)


def _why(judge: Callable[..., str], *judged: Any) -> str:
    try:
        return judge(*judged)
    except Exception as error:  # noqa: BLE001 - whatever is in it, it must not end the worker
        return f"{type(error).__name__}: {error}"[:_LONGEST_WHY_CHARS]


def _foreign(raw: bytes, channel: Any) -> str:
    if len(raw) > LONGEST_RAW_BYTES:
        return f"{len(raw)} bytes"
    payload = loads(bytes_to_str(raw))
    if "compression" in payload["headers"]:  # kombu would unpack it, however large it gets
        return "it is compressed"
    message = channel.Message(payload, channel=channel)
    tag, places = message.delivery_tag, (message.delivery_info["exchange"], message.delivery_info["routing_key"])
    plain = all(isinstance(text, str) and len(text) <= _LONGEST_NAME_CHARS for text in (tag, *places))
    return "" if plain and tag.isprintable() else "its delivery"


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
        """Stand before the consumer's own handler, which it makes at every connection, and before kombu's parser."""
        _let_bytes_be_dropped(consumer.task_consumer.channel)

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


def _let_bytes_be_dropped(channel: Any) -> None:
    """Let kombu see nothing of what it cannot read, for an error in its loop ends the worker.

    It takes an entry off the queue and parses it in one go (kombu 5.7, `Channel._brpop_read`); only the client's answer
    comes before. What is dropped looks like a wait in which nothing came.
    """
    answer = channel.client.parse_response

    def checked(connection: Any, command: str, **options: Any) -> Any:
        """The client's answer, unless it is an entry to be dropped."""
        popped = answer(connection, command, **options)
        if command == "BRPOP" and popped and (why := foreign(popped[1], channel)):
            logger.error("message_refused", extra={"why": why})
            return None
        return popped

    channel.client.parse_response = checked
