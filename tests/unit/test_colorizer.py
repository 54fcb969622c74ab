"""Covering a picture with windows, and blending them; no net needed."""

import itertools

import numpy as np
import pytest

from model.colorizer import Window, blend, windows


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
