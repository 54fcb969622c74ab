"""TensorBoard's files: read back with TensorFlow's own reader."""

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from model.curves import Curves
from model.sheets import write_sheet


def events(folder):
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            yield event_pb2.Event.FromString(record.numpy())


def test_points_and_pictures_are_read_back(tmp_path):
    curves = Curves(tmp_path / "tensorboard", 100.0)
    curves.add(25, 101.0, {"g_l1": 0.5, "rate": 2e-4})
    write_sheet(tmp_path / "grid.png", [[np.full((20, 30, 3), 200, np.uint8)]])
    curves.add_picture(25, 102.0, "samples", (tmp_path / "grid.png").read_bytes())
    first, started, point, picture = events(tmp_path / "tensorboard")
    assert first.file_version == "brain.Event:2"
    assert started.session_log.status == event_pb2.SessionLog.START
    assert {value.tag: round(value.simple_value, 6) for value in point.summary.value} == {"g_l1": 0.5, "rate": 2e-4}
    image = picture.summary.value[0].image
    assert (image.width, image.height, image.colorspace) == (34, 24, 3)
    assert cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR).shape == (24, 34, 3)


def test_a_run_that_goes_on_has_tensorboard_drop_what_the_checkpoint_did_not_see(tmp_path):
    Curves(tmp_path, 100.0).add(75, 101.0, {"g_l1": 0.4})
    Curves(tmp_path, 200.0, step=50).add(75, 201.0, {"g_l1": 0.3})
    started = [e for e in events(tmp_path) if e.session_log.status == event_pb2.SessionLog.START]
    assert [event.step for event in started] == [1, 51]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch):
    curves = Curves(tmp_path, 100.0)

    def full(data):
        raise tf.errors.ResourceExhaustedError(None, None, "events.out.tfevents; No space left on device")

    monkeypatch.setattr(curves, "_writer", type("Full", (), {"write": staticmethod(full)}))
    with pytest.raises(OSError, match="No space left") as refused:
        curves.add(25, 101.0, {"g_l1": 0.5})
    assert (refused.value.errno, Path(refused.value.filename)) == (errno.ENOSPC, tmp_path)
