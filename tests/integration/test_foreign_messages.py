"""Bytes in a queue's list that are no message are dropped with one line, and what lies behind them is taken."""

import contextlib
import logging
import tracemalloc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import raw_messages_made
import redis

from daemon.broker import EmbeddedBroker
from worker import messages, queue

FOREIGN = raw_messages_made.foreign()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    made = EmbeddedBroker(tmp_path_factory.mktemp("broker"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def took(broker: EmbeddedBroker) -> Iterator[Any]:
    """Pushes bytes and a right message behind them, and lets a guarded consumer take what comes, once."""
    with (
        contextlib.closing(redis.Redis(unix_socket_path=str(broker.socket))) as client,
        queue.app.connection_for_read(f"redis+socket://{broker.socket}?virtual_host=0") as connection,
    ):
        client.flushall()
        seen: list[Any] = []
        consumer = queue.app.amqp.TaskConsumer(connection)
        consumer.on_message = lambda message: (seen.append(message), message.ack())
        messages.Door(SimpleNamespace()).start(SimpleNamespace(task_consumer=consumer))
        consumer.consume()

        def take(*raw: bytes) -> list[Any]:
            seen.clear()
            client.lpush("photochrom:colorize", *raw)
            queue.app.send_task(queue.COLORIZE, (7,), connection=connection, priority=0, retry=False)
            while not seen:
                connection.drain_events(timeout=10)
            assert client.hlen("photochrom:unacked") == client.llen("photochrom:colorize") == 0
            return [message.decode()[0] for message in seen]

        yield take


@pytest.mark.parametrize("what", FOREIGN)
def test_it_is_dropped(took: Any, what: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "worker.messages"):
        assert took(FOREIGN[what]) == [[7]]
    assert [record.getMessage() for record in caplog.records] == ["message_refused"]
    assert 0 < len(caplog.records[0].why) <= 200


def test_any_number_of_them(took: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert took(*FOREIGN.values()) == [[7]]
    assert caplog.text.count("message_refused") == len(FOREIGN)


def test_what_is_compressed_is_not_unpacked(broker: EmbeddedBroker) -> None:
    with queue.app.connection_for_read(f"redis+socket://{broker.socket}?virtual_host=0") as connection:
        channel = connection.default_channel
        tracemalloc.start()
        try:
            assert messages.foreign(FOREIGN["a bomb"], channel)
            assert tracemalloc.get_traced_memory()[1] < raw_messages_made.BOMB_BYTES / 8
        finally:
            tracemalloc.stop()


KEY = "photochrom:"


@pytest.mark.parametrize("spoil", [
    lambda client: client.set(f"{KEY}colorize\x06\x163", "x"), lambda client: client.set(f"{KEY}unacked", "x"),
    lambda client: client.set(f"{KEY}unacked_index", "x"),
    lambda client: client.set(f"{KEY}_kombu.binding.colorize", "x"),
    lambda client: (client.hset(f"{KEY}unacked", "t", b"garbage"), client.zadd(f"{KEY}unacked_index", {"t": 1})),
    lambda client: (client.hset(f"{KEY}unacked", "t", b"[1, 2]"), client.zadd(f"{KEY}unacked_index", {"t": 1})),
    lambda client: (client.hset(f"{KEY}unacked", "t", b"[" * 10**5), client.zadd(f"{KEY}unacked_index", {"t": 1})),
])  # fmt: skip
def test_what_is_not_as_kombu_keeps_it_is_taken_away_before_a_worker_starts(
    broker: EmbeddedBroker, spoil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them alone has ended every worker at its start, until somebody emptied the broker."""
    url, connection_to = f"redis+socket://{broker.socket}?virtual_host=0", queue.app.connection_for_write
    monkeypatch.setattr(queue.app, "connection_for_write", lambda: connection_to(url))
    with contextlib.closing(redis.Redis(unix_socket_path=str(broker.socket))) as client:
        client.flushall()
        spoil(client)
        kept = b'[{"properties": {}, "headers": {}}, "", "colorize"]'
        if client.type(f"{KEY}unacked") in (b"hash", b"none"):
            client.hset(f"{KEY}unacked", "ours", kept)
        messages.forget_what_is_foreign()
        with connection_to(url) as connection:
            connection.default_channel.qos.restore_visible(num=10)
            consumer = queue.app.amqp.TaskConsumer(connection)
            consumer.consume()
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=1.2)
        assert client.hgetall(f"{KEY}unacked") in ({}, {b"ours": kept})
