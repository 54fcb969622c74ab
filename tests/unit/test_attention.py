"""A message that is reserved and in nobody's hands makes the worker reconnect."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from worker import queue, tasks
from worker.attention import LOOKS, Attention


def consumer(delivered: int, dirty: int = 0) -> Any:
    qos = SimpleNamespace(_delivered=dict.fromkeys(range(delivered)), _dirty=set(range(dirty)))
    return SimpleNamespace(task_consumer=SimpleNamespace(channel=SimpleNamespace(qos=qos)))


def look_often(step: Attention, worker: Any) -> None:
    for _ in range(LOOKS - 1):
        step.look(worker)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Attention:
    monkeypatch.setattr(state, "reserved_requests", set())
    return Attention(SimpleNamespace(timer=None))


def test_it_reconnects_after_some_looks(step: Attention) -> None:
    look_often(step, consumer(1))
    with pytest.raises(ConnectionResetError):
        step.look(consumer(1))


def test_a_message_in_hand_or_acknowledged_is_none(step: Attention) -> None:
    for _ in range(LOOKS + 1):
        step.look(consumer(1, 1))
        step.look(consumer(0))
    state.reserved_requests.add(object())
    for _ in range(LOOKS + 1):
        step.look(consumer(1))
    look_often(step, consumer(2))
    step.look(consumer(1))
    look_often(step, consumer(2))


def test_a_transport_that_counts_otherwise_is_left_alone(step: Attention) -> None:
    for _ in range(LOOKS + 1):
        step.look(SimpleNamespace(task_consumer=None))


def test_every_worker_has_it() -> None:
    assert tasks and Attention in queue.app.steps["consumer"]
