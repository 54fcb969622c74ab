"""L*, Lab, sRGB and the gamut table."""

import numpy as np
import pytest
from skimage import color

from model import lab


def test_lab_agrees_with_a_second_implementation() -> None:
    rgb = np.random.default_rng(0).random((64, 64, 3))
    np.testing.assert_allclose(lab.lab_from_srgb(rgb), color.rgb2lab(rgb), atol=3e-2)


def test_lightness_and_luminance_are_inverse() -> None:
    light = np.linspace(0, 100, 1001)
    np.testing.assert_allclose(lab.lightness(lab.luminance(light)), light, atol=1e-9)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_a_neutral_pixel_keeps_its_code(bit_depth: int) -> None:
    codes = np.linspace(0, 2**bit_depth - 1, 4096).round().astype(np.uint16 if bit_depth == 16 else np.uint8)
    gray = np.repeat(codes[None, :, None], 3, axis=2)
    light = lab.srgb_lightness(gray)
    zero = np.zeros_like(light)
    again = lab.quantise(lab.srgb_from_lab(light, zero, zero), light, bit_depth)
    assert np.abs(again.astype(int) - gray).max() <= (
        0 if bit_depth == 8 else 6
    )  # 6/65535: 0.006 L*, OpenCV's tone curve


@pytest.mark.parametrize(("bit_depth", "limit"), [(8, 0.25), (16, 0.01)])
@pytest.mark.parametrize("spread", [5.0, 40.0, 150.0])
def test_l_star_survives_any_chroma(bit_depth: int, limit: float, spread: float) -> None:
    rng = np.random.default_rng(1)
    light = rng.uniform(0, 100, (400, 500)).astype(np.float32)
    light[:100] = rng.uniform(0, 20, (100, 500))  # where one 8-bit code is worth most
    a, b = rng.normal(0, spread, (2, 400, 500)).astype(np.float32)
    a, b = lab.compress_chroma(light, a, b)
    codes = lab.quantise(lab.srgb_from_lab(light, a, b), light, bit_depth)
    assert np.abs(lab.srgb_lightness(codes) - light).max() <= limit


def test_compression_keeps_the_hue_and_what_fits() -> None:
    rng = np.random.default_rng(2)
    light = rng.uniform(1, 99, (100, 100)).astype(np.float32)
    a, b = rng.normal(0, 60, (2, 100, 100)).astype(np.float32)
    less_a, less_b = lab.compress_chroma(light, a, b)
    assert np.abs(a * less_b - b * less_a).max() < 1e-1
    assert (np.hypot(less_a, less_b) <= np.hypot(a, b) + 1e-4).all()
    middle = np.full((10, 10), 50, np.float32)
    small = np.full((10, 10), 8, np.float32)
    np.testing.assert_array_equal(lab.compress_chroma(middle, small, -small), (small, -small))


def test_the_table_gives_away_little_chroma() -> None:
    """Pure colours of the sRGB cube's surface keep most of their chroma."""
    surface = np.random.default_rng(3).random((2000, 3))
    surface[np.arange(2000), np.arange(2000) % 3] = np.arange(2000) // 3 % 2
    values = lab.lab_from_srgb(surface).astype(np.float32)
    values = values[np.hypot(values[:, 1], values[:, 2]) > 20]
    light, a, b = (np.ascontiguousarray(values[None, :, i]) for i in range(3))
    kept = np.hypot(*lab.compress_chroma(light, a, b)) / np.hypot(a, b)
    assert kept.mean() > 0.95
    assert np.quantile(kept, 0.01) > 0.7


def test_wider_than_opencv_remaps() -> None:
    light = np.linspace(0, 100, 40_000, dtype=np.float32)[None].repeat(2, axis=0)
    strong = np.full_like(light, 90)
    whole = lab.compress_chroma(light, strong, strong)[0]
    part = lab.compress_chroma(light[:, 20_000:21_000], strong[:, :1000], strong[:, :1000])[0]
    np.testing.assert_array_equal(whole[:, 20_000:21_000], part)
