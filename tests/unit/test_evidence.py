"""What shows nothing gets no colour; what shows anything gets all of it, however faint it is."""

import cv2
import numpy as np
import pytest
from pages_made import drawn, lit, printed, ruled, turned, typed
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
    "noise on 100 px": np.random.default_rng(6).uniform(0, 100, (100, 100)).astype(np.float32),
    "noise on a strip": np.random.default_rng(7).uniform(0, 100, (127, 600)).astype(np.float32),
    "grain on 64 px": 80 + np.random.default_rng(8).normal(0, 2, (64, 90)).astype(np.float32),
    "one pixel": np.full((1, 1), 40, np.float32),
    "four pixels": np.array([[10, 80], [90, 20]], np.float32),
    "a strip of 15 px": np.tile(np.float32([[0, 100]] * 300).reshape(1, -1), (15, 1)),
}


def photograph(name: str) -> np.ndarray:
    rgb = getattr(data, name)()
    rgb = rgb if rgb.ndim == 3 else np.dstack([rgb] * 3)
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 0].copy()


PAGES = {
    "crisp": printed(),
    "soft": cv2.GaussianBlur(printed(), (0, 0), 1.2),
    "faded": printed() * 0.1 + 60,
    "inverted": 100 - printed(),
    "lit from one side": lit(printed()),
    "inverted, lit from one side": lit(100 - printed()),
    "grainy": printed() + np.random.default_rng(9).normal(0, 3, (400, 300)).astype(np.float32),
    "askew": turned(printed(), 7),
    "on lined paper": ruled(printed()),
    "typed": typed(),
    "of small letters": cv2.resize(printed(), (120, 160), interpolation=cv2.INTER_AREA),
    "drawing": drawn(),
    "faded drawing under a lamp": lit(drawn()) * 0.3 + 40,
    "page": photograph("page"),
    "bent page, faded": photograph("page") * 0.3 + 50,
    "handwriting": photograph("text"),
    "chalk": 100 - photograph("text"),
}


@pytest.mark.parametrize("name", PAGES)
def test_pages_of_text_and_drawings_have_no_colour(name):
    assert colour_share(PAGES[name].astype(np.float32)) == 0


SCENES = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "hubble_deep_field", "moon", "rocket")


@pytest.mark.parametrize("name", SCENES)
def test_photographs_are_no_pages_whatever_becomes_of_them(name):
    light = photograph(name)
    assert colour_share(light) == 1
    assert colour_share(light * np.float32(0.3) + 50) == 1
    assert colour_share(cv2.GaussianBlur(light, (0, 0), min(light.shape) * 0.01)) == 1
    mounted = cv2.copyMakeBorder(light, 40, 90, 40, 40, cv2.BORDER_CONSTANT, value=97).astype(np.uint8)
    assert colour_share(mounted.astype(np.float32)) == 1
    cv2.putText(mounted, "No. 12 as seen in 1904", (50, mounted.shape[0] - 40), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 10, 1)
    assert colour_share(mounted.astype(np.float32)) == 1
    half = np.vstack([cv2.resize(light, (300, 200), interpolation=cv2.INTER_AREA), printed()])
    assert colour_share(half) == 1  # with a column of text below


@pytest.mark.parametrize("name", ["grass", "gravel"])
def test_what_is_the_same_everywhere_is_no_page(name):
    light = photograph(name)
    assert colour_share(cv2.GaussianBlur(light, (0, 0), min(light.shape) * 0.01)) == 1


def test_birds_in_the_sky_and_windows_of_a_facade_are_no_page():
    random = np.random.default_rng(10)
    sky = np.tile(np.linspace(60, 90, 300, dtype=np.float32)[:, None], (1, 400))
    for y, x in random.integers((10, 10), (290, 390), (60, 2)):
        sky[y : y + 3, x : x + random.integers(3, 9)] = 20
    assert colour_share(sky) == 1
    facade = np.full((300, 400), 70, np.float32)
    for top in range(10, 290, 20):
        for left in range(8, 390, 16):
            facade[top : top + 9, left : left + 6] = 30
    assert colour_share(facade) == 1


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
