"""Where the net computes: chosen once per process, before TensorFlow touches a GPU; and how many cores there are."""

import os
from collections.abc import Callable
from typing import Literal

import tensorflow as tf


class DeviceError(ValueError):
    """The device that was asked for is not there."""


def choose(device: Literal["auto", "cpu", "gpu"]) -> None:
    """Use the GPUs, or hide them; several processes can share a GPU because its memory is taken as needed.

    Args:
        device: "auto" takes a GPU where there is one, "gpu" insists, "cpu" leaves GPUs alone.

    Raises:
        DeviceError: "gpu", and TensorFlow finds none.
    """
    found = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not found:
        raise DeviceError(
            "TensorFlow finds no GPU. Install requirements-gpu.lock and NVIDIA's driver, or use --device auto."
        )
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        return
    for gpu in found:
        tf.config.experimental.set_memory_growth(gpu, True)


def cores() -> int:
    """How many cores this process may use, which on a shared machine may be fewer than there are; at least 1."""
    told: Callable[[], int | None] | None = getattr(os, "process_cpu_count", None)  # of Python 3.13
    if told is not None:
        return told() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
