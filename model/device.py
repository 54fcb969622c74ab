"""Where the net computes: chosen once per process, before TensorFlow touches a GPU."""

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
