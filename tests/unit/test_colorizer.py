"""Covering a picture with windows, and blending them; no net needed."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.colorizer import Colorizer, Window, blend, windows
from model.registry import Version


def test_up_to_two_to_one_the_picture_is_squashed_whole() -> None:
    assert windows(1.0) == windows(2.0) == [Window(0.0, 1.0)]


@pytest.mark.parametrize("ratio", [2.01, 3.0, 7.7, 20.0, 1000.0])
def test_windows_cover_a_panorama_with_overlap(ratio: float) -> None:
    parts = windows(ratio)
    assert parts[0].start == 0.0
    assert parts[-1].stop == pytest.approx(1.0)
    assert len(parts) <= 25
    for left, right in itertools.pairwise(parts):
        assert (left.stop - right.start) / (left.stop - left.start) >= 0.33


@pytest.mark.parametrize("ratio", [2.5, 20.0])
def test_blending_equal_windows_changes_nothing(ratio: float) -> None:
    parts = windows(ratio)
    planes = np.full((len(parts), 16, 16, 2), 7.0, np.float32)
    whole = blend(planes, parts)
    assert whole.shape[0] == 16
    assert whole.shape[1] == round(16 * min(ratio, 24) / 1.5)
    np.testing.assert_allclose(whole, 7.0, atol=1e-5)


def test_blending_has_no_steps() -> None:
    parts = windows(6.0)
    planes = np.ones((len(parts), 64, 64, 2), np.float32) * np.arange(len(parts))[:, None, None, None] * 10
    assert np.abs(np.diff(blend(planes, parts), axis=1)).max() < 1.5


class Copying(Colorizer):
    """A net's stand-in that works pixel by pixel: a is the lightness it sees, b its negative."""

    def __init__(self) -> None:
        self.version = Version(
            name="copy", directory=Path(), weights_sha256="", serve_size_px=64, saturation=1.0, config={}
        )
        self._side = 64
        self.seen = 0

    def _predict(self, fitted):
        self.seen = len(fitted)
        half = np.stack([cv2.resize(plane, (32, 32), interpolation=cv2.INTER_AREA) for plane in fitted])
        return np.stack([half, -half], axis=-1)


def test_a_vertical_panorama_is_the_horizontal_one_turned() -> None:
    """Windows in their order from the top down, each laid where it was cut."""
    random = np.random.default_rng(3)
    light = cv2.resize(random.uniform(0, 100, (12, 84)).astype(np.float32), (840, 120), interpolation=cv2.INTER_NEAREST)
    light *= np.linspace(0.1, 1, 840, dtype=np.float32)  # brighter along it: an order that is mixed up shows
    lying = Copying()
    across, along = lying.chroma(light), lying.chroma(np.ascontiguousarray(light.T))
    assert lying.seen == len(windows(7.0)) > 3
    assert across.shape == (32, round(32 * 7 / 1.5), 2)
    np.testing.assert_allclose(along, across.transpose(1, 0, 2), atol=1e-4)
    expected = cv2.resize(light, across.shape[1::-1], interpolation=cv2.INTER_AREA) / 50 - 1
    assert np.abs(across[..., 0] - expected).mean() < 0.1
    np.testing.assert_array_equal(across[..., 1], -across[..., 0])
