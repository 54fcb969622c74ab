"""The saturation that a hold-out asks for, by generators whose colours are known."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from model.calibrate import calibrate, predict
from model.config import AB_RANGE, Phase, Preset

SIDE = 64
PRESET = Preset(
    name="p", phases=(Phase(name="l1", objective="l1", share=1.0, size_px=SIDE),), serve_size_px=SIDE,
    chroma_ratio_aim=0.95,
)  # fmt: skip
#: two flat photos, the second of less chroma
PHOTOS = [np.full((80, 70, 3), shade, np.uint8) for shade in ((200, 80, 60), (110, 120, 140))]
AB = [cv2.cvtColor(photo[:1, :1].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0, 0, 1:] for photo in PHOTOS]
PACK = SimpleNamespace(photo=lambda index: PHOTOS[index])


def colours(*answers: np.ndarray):
    """A generator that gives the pictures of a batch these ab, everywhere."""

    def generator(light: np.ndarray, training: bool) -> np.ndarray:
        assert not training
        assert light.shape[1:] == (SIDE, SIDE, 1) and np.abs(light).max() <= 1
        planes = [np.broadcast_to(ab / AB_RANGE, (SIDE // 2, SIDE // 2, 2)) for ab in answers]
        return np.stack(planes).astype(np.float32)

    return generator


def chroma(ab: np.ndarray) -> float:
    return float(np.hypot(*ab))


def test_the_ratio_is_that_of_mean_chroma_over_the_set():
    found = calibrate(colours(0.9 * AB[0], 0.2 * AB[1]), PACK, np.array([0, 1]), PRESET)
    ratio = (0.9 * chroma(AB[0]) + 0.2 * chroma(AB[1])) / (chroma(AB[0]) + chroma(AB[1]))
    assert chroma(AB[0]) > 2 * chroma(AB[1]), "else the mean of the photos' ratios would do as well"
    assert found.photos == 2
    assert found.raw_chroma_ratio == pytest.approx(ratio, rel=1e-3)
    assert found.saturation == pytest.approx(0.95 / ratio, rel=1e-3)
    assert found.ab_l1 == pytest.approx((0.1 * np.abs(AB[0]).mean() + 0.8 * np.abs(AB[1]).mean()) / 2, rel=1e-3)
    truth, ours = np.concatenate(AB), np.concatenate([0.9 * AB[0], 0.2 * AB[1]])
    expected = truth @ ours / np.sqrt((truth @ truth) * (ours @ ours))
    assert found.agreement == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("strength", "saturation"), [(0.7, 0.95 / 0.7), (0.3, 1.8), (0.01, 1.8), (0.95, 1.0), (2.0, 1.0)]
)
def test_the_saturation_is_clipped(strength, saturation):
    found = calibrate(colours(strength * AB[0]), PACK, np.array([0]), PRESET)
    assert found.raw_chroma_ratio == pytest.approx(strength, rel=1e-3)
    assert found.saturation == pytest.approx(saturation, rel=1e-3)
    assert found.agreement == pytest.approx(1, abs=1e-5)


def test_an_empty_hold_out_and_a_net_without_colour_leave_the_saturation_alone():
    none = calibrate(colours(), PACK, np.array([], int), PRESET)
    assert (none.photos, none.saturation) == (0, 1.0)
    gray = calibrate(colours(np.zeros(2)), PACK, np.array([0]), PRESET)
    assert (gray.photos, gray.saturation) == (1, 1.0)


def test_a_prediction_is_the_mean_with_the_mirrored_pictures():
    light = np.random.default_rng(0).uniform(-1, 1, (2, SIDE, SIDE, 1)).astype(np.float32)

    def generator(seen: np.ndarray, training: bool) -> np.ndarray:
        """Colours that come from one side: a is the light, b the column."""
        half = seen[:, ::2, ::2, 0]
        return np.stack([half, np.broadcast_to(np.linspace(0, 1, SIDE // 2), half.shape)], axis=-1)

    # b is a ramp, its mirror picture falls: the mean is a half everywhere
    ours = predict(generator, light)
    np.testing.assert_allclose(ours[..., 1], AB_RANGE / 2, rtol=1e-5)
    mirrored = light[:, ::2, ::-1, 0][:, :, ::2][:, :, ::-1]
    np.testing.assert_allclose(ours[..., 0], (light[:, ::2, ::2, 0] + mirrored) / 2 * AB_RANGE, rtol=1e-4, atol=1e-4)
    plain = predict(generator, light, flip_average=False)
    np.testing.assert_allclose(plain[..., 0], light[:, ::2, ::2, 0] * AB_RANGE, rtol=1e-5)
