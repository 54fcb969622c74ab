"""What shows nothing gets no colour; what shows anything gets all of it, however faint it is."""

import cv2
import numpy as np
import pytest
from skimage import data
from versions_made import make_version

from model.colorizer import Colorizer
from model.evidence import colour_share

RAMP = np.tile(np.linspace(0, 100, 300, dtype=np.float32), (200, 1))
Y, X = np.mgrid[-1:1:200j, -1:1:300j].astype(np.float32)


def smooth(picture: np.ndarray, sigma: float) -> np.ndarray:
    noise = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), sigma)
    return (noise - noise.min()) / np.ptp(noise) * 100


NOTHING = {
    "flat": np.full((90, 70), 40, np.float32),
    "ramp": RAMP,
    "faint ramp": 50 + RAMP * np.float32(0.05),
    "ramp upwards": RAMP.T.copy(),
    "panorama of a ramp": np.tile(np.linspace(0, 100, 2000, dtype=np.float32), (100, 1)),
    "grainy ramp": RAMP + np.random.default_rng(0).normal(0, 3, RAMP.shape).astype(np.float32),
    "lamp": 100 * np.exp(-2 * (X**2 + Y**2)),
    "waves": 50 + 50 * np.sin(3 * X) * np.cos(2 * Y),
    "clouds without an edge": smooth(np.random.default_rng(1).normal(size=(512, 512)), 64),
    "noise": np.random.default_rng(2).uniform(0, 100, (200, 200)).astype(np.float32),
    "grain on a page": 80 + np.random.default_rng(3).normal(0, 2, (400, 300)).astype(np.float32),
    "coarse grain": smooth(np.random.default_rng(4).normal(size=(512, 512)), 2),
    "one pixel": np.full((1, 1), 40, np.float32),
}


def photograph(name: str) -> np.ndarray:
    rgb = getattr(data, name)()
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 0].copy()


@pytest.mark.parametrize("name", NOTHING)
def test_smooth_light_and_noise_show_nothing(name):
    assert colour_share(NOTHING[name]) == 0


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_photographs_keep_all_their_colour_also_faded_blurred_and_small(name):
    light = photograph(name)
    side = min(light.shape)
    assert colour_share(light) == 1
    assert colour_share(light * np.float32(0.05) + 85) == 1  # fog
    assert colour_share(np.round(light * np.float32(0.1) + 20)) == 1  # faded, and of few steps
    assert colour_share(cv2.GaussianBlur(light, (0, 0), side * 0.01)) == 1
    grain = np.random.default_rng(5).normal(0, 8, light.shape).astype(np.float32)
    assert colour_share(light * np.float32(0.3) + 30 + grain) == 1
    assert colour_share(cv2.resize(light, (40, 30), interpolation=cv2.INTER_AREA)) == 1


def test_a_boat_in_the_fog_is_something():
    fog = 70 + RAMP * np.float32(0.1)
    fog[120:132, 100:118] -= 6
    assert colour_share(fog) == 1


def test_between_nothing_and_something_there_is_no_step():
    shares = [colour_share(RAMP + step * (X > 0)) for step in np.linspace(0, 60, 61)]
    assert shares[0] == 0 and shares[-1] == 1
    assert np.diff(shares).max() < 0.25


def test_the_net_is_obeyed_in_part_only_where_the_picture_shows_little(tmp_path):
    colorizer = Colorizer(make_version(tmp_path, "v1", tint=0.5))
    colorizer.warm()
    assert not colorizer.chroma(RAMP).any()
    assert np.abs(colorizer.chroma(photograph("coffee"))).min() > 0
