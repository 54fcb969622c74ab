"""Chroma upsampling: no seams, the net's chroma kept, edges followed."""

import cv2
import numpy as np
import pytest

from model.chroma import ChromaUpsampler


def _whole(chroma: np.ndarray, light: np.ndarray, rows: int) -> np.ndarray:
    height, width = light.shape
    small = cv2.resize(light, (min(width, 64), min(height, 64)), interpolation=cv2.INTER_AREA)
    small = small.reshape(min(height, 64), min(width, 64))
    up = ChromaUpsampler(chroma, small, width, height)
    strips = [np.dstack(up.rows(top, light[top : top + rows])) for top in range(0, height, rows)]
    return np.concatenate(strips)


@pytest.fixture
def picture() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    light = cv2.GaussianBlur(rng.random((203, 331)).astype(np.float32) * 100, (0, 0), 3)
    return rng.normal(0, 30, (16, 16, 2)).astype(np.float32), light


def test_strips_have_no_seams(picture: tuple[np.ndarray, np.ndarray]) -> None:
    chroma, light = picture
    whole = _whole(chroma, light, 203)
    for rows in (1, 7, 64):
        np.testing.assert_allclose(_whole(chroma, light, rows), whole, atol=1e-3)


def test_without_detail_it_is_bicubic(picture: tuple[np.ndarray, np.ndarray]) -> None:
    chroma, light = picture
    flat = np.full_like(light, 50)
    expected = cv2.resize(chroma, (331, 203), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(_whole(chroma, flat, 50), expected, atol=2e-3)


def test_shrunk_again_it_is_the_nets_chroma(picture: tuple[np.ndarray, np.ndarray]) -> None:
    _, light = picture
    smooth = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 60, (32, 32, 2)).astype(np.float32), (0, 0), 3)
    again = cv2.resize(_whole(smooth, light, 40), (32, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(again - smooth).mean() < 0.5


def test_a_luminance_edge_sharpens_the_chroma_edge() -> None:
    height = width = 256
    truth = np.zeros((height, width, 2), np.float32)
    light = np.full((height, width), 30, np.float32)
    light[:, 101:], truth[:, 101:, 0], truth[:, :101, 1] = 70, 40, 30
    coarse = cv2.resize(truth, (32, 32), interpolation=cv2.INTER_AREA)
    bicubic = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    ours = _whole(coarse, light, 64)
    assert np.abs(ours - truth).mean() < 0.75 * np.abs(bicubic - truth).mean()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (7, 2000)])
def test_any_size(size: tuple[int, int]) -> None:
    light = np.random.default_rng(0).random(size).astype(np.float32) * 100
    out = _whole(np.full((16, 16, 2), 12, np.float32), light, 3)
    assert out.shape == (*size, 2)
    np.testing.assert_allclose(out, 12, atol=1e-3)
