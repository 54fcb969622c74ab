"""Bytes as anybody could push them into a queue's list, none of them a message of ours."""

import base64
import copy
import json
import zlib
from collections.abc import Iterator
from typing import Any, Final

from worker import queue

_ABSENT: Final = object()
#: the size to which a message of a few kilobytes unpacks
BOMB_BYTES: Final = 64 * 2**20


def ours(name: str = queue.COLORIZE, arguments: tuple[Any, ...] = (1,)) -> dict[str, Any]:
    """A message with its envelope, as kombu's Redis transport puts it into the list."""
    sent = queue.app.amqp.as_task_v2("an-id", name, arguments, {})
    return {
        "body": base64.b64encode(json.dumps(sent.body).encode()).decode(),
        "content-type": "application/json", "content-encoding": "utf-8", "headers": sent.headers,
        "properties": {"correlation_id": "an-id", "delivery_mode": 2, "priority": 0, "body_encoding": "base64",
                       "delivery_tag": "a-tag", "delivery_info": {"exchange": "", "routing_key": "colorize"}},
    }  # fmt: skip


def foreign() -> dict[str, bytes]:
    """What is no message, by what is wrong with it."""
    deep = 100_000
    plain = {
        "words": b"garbage", "no UTF-8": b"\xff\xfe\0", "nothing": b"", "a list": b"[]", "a number": b"5",
        "null": b"null", "a string": b'"x"', "an empty object": b"{}", "deep": b"[" * deep + b"]" * deep,
        "a little deep": b"[" * 30_000, "a long number": b"9" * 10_000,
        "long": b" " * 70_000 + json.dumps(ours()).encode(),
        "a type of kombu's": b'{"__type__": "date", "__value__": 5}', "no type": b'{"__type__": [], "__value__": 5}',
    }  # fmt: skip
    return plain | dict(_bent())


def _bent() -> Iterator[tuple[str, bytes]]:
    bomb = base64.b64encode(zlib.compress(b" " * BOMB_BYTES, 9)).decode()
    bent: dict[tuple[str, ...], tuple[Any, ...]] = {
        ("properties",): (_ABSENT, [], None, "x"),
        ("properties", "delivery_tag"): (_ABSENT, None, 5, {"a": 1}, [], "\ud800", "x" * 1000),
        ("properties", "delivery_info"): (_ABSENT, None, "x", [1], {"exchange": ""},
                                          {"exchange": [], "routing_key": {}}),
        ("properties", "body_encoding"): ("rot13", 5, [1]),
        ("body",): (5, [1], "abc", {"a": 1}),
        ("headers",): (_ABSENT, None, [1], "x", 5),
        ("headers", "compression"): ("zlib", [1], None),
    }  # fmt: skip
    for path, values in bent.items():
        for value in values:
            yield f"{'.'.join(path)}: {'absent' if value is _ABSENT else repr(value)[:20]}", _with(path, value)
    packed = ours()
    packed["headers"]["compression"], packed["body"] = "application/x-gzip", bomb
    yield "a bomb", json.dumps(packed).encode()


def _with(path: tuple[str, ...], value: Any) -> bytes:
    made = copy.deepcopy(ours())
    inner = made
    for name in path[:-1]:
        inner = inner[name]
    if value is _ABSENT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(made).encode()
