"""Messages are taken in the form in which we send them, and in no other."""

import datetime as dt
import json
from typing import Any
from unittest import mock

import pytest
from celery.beat import ScheduleEntry, Scheduler
from kombu.message import Message

from worker import messages, queue, tasks


def made(name: str, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None, **more: Any) -> Any:
    """A message as Celery sends it, and with `headers`, `body` or `kind` of another's."""
    headers, body = more.pop("headers", {}), more.pop("body", None)
    kind = more.pop("kind", "application/json")
    sent = queue.app.amqp.as_task_v2("an-id", name, arguments, named or {}, **more)
    return Message(json.dumps(sent.body) if body is None else body, content_type=kind, content_encoding="utf-8",
                   headers={**sent.headers, **headers}, accept={"application/json"})  # fmt: skip


@pytest.mark.parametrize("message", [
    made(queue.COLORIZE, (1,)), made(queue.COLORIZE, (2**63 - 1,)), made(queue.CURATE, expires=60), made(queue.TIDY),
    made(queue.RETRAIN, expires=dt.datetime(2027, 1, 1, tzinfo=dt.UTC)),
    made(queue.RETRAIN, named={"trigger": queue.RESUME}),
])  # fmt: skip
def test_ours_are_taken(message: Any) -> None:
    assert messages.refusal(message) == ""


@pytest.mark.parametrize("name", sorted(queue.app.conf.beat_schedule))
def test_what_beat_sends_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows the tasks, and sends along what they are declared with."""
    sent: list[Any] = []
    monkeypatch.setattr(
        queue.app.amqp, "send_task_message", lambda _producer, _name, message, **_: sent.append(message)
    )
    scheduler = Scheduler(app=queue.app, lazy=True)
    entry = ScheduleEntry(name, app=queue.app, **queue.app.conf.beat_schedule[name])
    scheduler.apply_async(entry, producer=mock.MagicMock(), advance=False)
    (message,) = sent
    assert tasks and message.headers["task"] == entry.task
    assert messages.refusal(Message(json.dumps(message.body), content_type="application/json", content_encoding="utf-8",
                                    headers=message.headers, accept={"application/json"})) == ""  # fmt: skip


@pytest.mark.parametrize(("message", "why"), [
    *((made(queue.COLORIZE, (job,)), "arguments") for job in (0, -1, 2**63, "1", 1.0, True, None, [1], {"a": 1})),
    (made(queue.COLORIZE), "arguments"), (made(queue.COLORIZE, (1, 2)), "arguments"),
    (made(queue.COLORIZE, (), {"job_id": 1}), "arguments"), (made(queue.TIDY, (1,)), "arguments"),
    (made(queue.RETRAIN, ("now",)), "arguments"), (made(queue.RETRAIN, (), {"trigger": 1}), "arguments"),
    (made("celery.chord_unlock", (1,)), "unknown task"), (made("other"), "unknown task"),
    (made(queue.COLORIZE, (1,), headers={"task": [1]}), "unknown task"),
    (made(queue.COLORIZE, (1,), headers={"id": 5}), "its id"),
    (made(queue.COLORIZE, (1,), headers={"id": "\x1b]0;"}), "its id"),
    (made(queue.COLORIZE, (1,), headers={"expires": "soon"}), "ValueError"),
    (made(queue.COLORIZE, (1,), headers={"expires": 5}), "TypeError"),
    (made(queue.COLORIZE, (1,), countdown=1e6), "eta"), (made(queue.COLORIZE, (1,), retries=3), "retries"),
    (made(queue.COLORIZE, (1,), callbacks=[{"task": queue.TIDY}]), "tasks to follow"),
    (made(queue.COLORIZE, (1,), body="["), "DecodeError"), (made(queue.COLORIZE, (1,), body="5"), "TypeError"),
    (made(queue.COLORIZE, (1,), body="[[1], [], {}]"), "arguments"),
    (made(queue.COLORIZE, (1,), body=" " * messages.LONGEST_BYTES + "[[1], {}, {}]"), "bytes"),
    (made(queue.COLORIZE, (1,), kind="application/x-python-serialize"), "ContentDisallowed"),
    (Message("[[1], {}, {}]", headers={}), "KeyError"),
])  # fmt: skip
def test_others_are_refused(message: Any, why: str) -> None:
    assert why in messages.refusal(message)


def test_time_limits_are_those_of_the_worker() -> None:
    seen: list[Any] = []
    consumer = type("Consumer", (), {
        "create_task_handler": lambda self: seen.append, "connection_errors": (), "task_consumer": mock.MagicMock(),
    })()  # fmt: skip
    messages.Door(consumer).start(consumer)
    consumer.create_task_handler()(made(queue.COLORIZE, (1,), time_limit=0.01, soft_time_limit="x"))
    (message,) = seen
    assert message.headers["timelimit"] == [None, None]
