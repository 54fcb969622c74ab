"""TensorBoard's event files, written without TensorBoard: curves and pictures of a training run."""

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import summary_pb2
from tensorflow.core.util import event_pb2


@contextlib.contextmanager
def _system_errors(folder: Path) -> Iterator[None]:
    """What the disk refuses to TensorFlow, as it refuses it to everybody else: an OSError."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message, str(folder)) from error


class Curves:
    """One `events.out.tfevents` per process; TensorBoard shows all files of a folder as one run."""

    def __init__(self, folder: Path, wall_time_s: float, step: int = 0) -> None:
        """Open a new file in the folder.

        Args:
            folder: made if missing.
            wall_time_s: now, seconds since 1970.
            step: where the run goes on; later points of earlier processes, which their checkpoint did not see, are
                dropped by TensorBoard.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        with _system_errors(folder):
            name = f"events.out.tfevents.{int(wall_time_s * 1000)}.photochrom"
            self._writer = tf.io.TFRecordWriter(str(folder / name))
        self._write(event_pb2.Event(wall_time=wall_time_s, file_version="brain.Event:2"))
        started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(wall_time=wall_time_s, step=step + 1, session_log=started))

    def add(self, step: int, wall_time_s: float, figures: dict[str, float]) -> None:
        """Write one point of each curve."""
        event: Any = event_pb2.Event(wall_time=wall_time_s, step=step)
        for tag, value in figures.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._write(event)

    def add_picture(self, step: int, wall_time_s: float, tag: str, png: bytes) -> None:
        """Write one RGB picture as the PNG that it is."""
        width, height = struct.unpack(">II", png[16:24])  # of the IHDR chunk, which is always the first
        event: Any = event_pb2.Event(wall_time=wall_time_s, step=step)
        image = summary_pb2.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        event.summary.value.add(tag=tag, image=image)
        self._write(event)

    def _write(self, event: Any) -> None:
        with _system_errors(self._folder):
            self._writer.write(event.SerializeToString())
            self._writer.flush()
