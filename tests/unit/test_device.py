"""Choosing a device, with TensorFlow's own answers replaced: no test host can be assumed to have a GPU."""

import os
from typing import Any

import pytest
import tensorflow as tf

from model import device


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What TensorFlow was told; its GPUs are those in `gpus`."""
    told: dict[str, Any] = {"gpus": [], "grow": []}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: told["gpus"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: told.update(visible=devices))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: told["grow"].append((gpu, on)))
    return told


def test_auto_without_a_gpu_is_the_cpu(asked: dict[str, Any]) -> None:
    device.choose("auto")
    assert asked == {"gpus": [], "grow": []}


@pytest.mark.parametrize("kind", ["auto", "gpu"])
def test_gpus_take_memory_as_needed(asked: dict[str, Any], kind: Any) -> None:
    asked["gpus"] = ["gpu0", "gpu1"]
    device.choose(kind)
    assert asked["grow"] == [("gpu0", True), ("gpu1", True)]


def test_cpu_hides_gpus(asked: dict[str, Any]) -> None:
    asked["gpus"] = ["gpu0"]
    device.choose("cpu")
    assert asked["visible"] == []
    assert asked["grow"] == []


def test_gpu_where_there_is_none_is_an_error(asked: dict[str, Any]) -> None:
    with pytest.raises(device.DeviceError, match="no GPU"):
        device.choose("gpu")


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert device.cores() == 3
    monkeypatch.setattr(os, "process_cpu_count", lambda: 7, raising=False)
    assert device.cores() == 7
    monkeypatch.setattr(os, "process_cpu_count", lambda: None)
    assert device.cores() == 1
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert device.cores() == 9
