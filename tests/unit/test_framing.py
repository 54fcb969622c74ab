"""How pictures are laid onto the net's input, and that the way is recorded with a version and kept in service."""

import numpy as np
import pytest
from skimage import data
from versions_made import make_version

from model.colorizer import Colorizer
from model.framing import input_size, rectangles
from model.registry import WeightsError, open_version


@pytest.mark.parametrize("side", [64, 192, 256, 320, 384])
def test_rectangles_are_about_as_large_as_the_square(side: int) -> None:
    sizes = rectangles(side)
    assert sizes[0] == (side, side)
    assert len(set(sizes)) == len(sizes) <= 30
    for height, width in sizes:
        assert height % 32 == width % 32 == 0
        assert 0.87 < height * width / side**2 < 1.13
        assert (width, height) in sizes


def test_the_nearest_shape_is_taken() -> None:
    assert input_size(256, "square", 1.9) == (256, 256)
    assert input_size(256, "aspect", 1.0) == (256, 256)
    assert input_size(256, "aspect", 4 / 3) == (224, 288)
    assert input_size(256, "aspect", 3 / 4) == (288, 224)
    assert input_size(256, "aspect", 2.0) == (192, 384)
    assert input_size(256, "aspect", 0.1) == (384, 192)


def test_a_version_serves_as_its_record_says(tmp_path) -> None:
    version = make_version(tmp_path, "v1")
    assert version.framing == "square"
    light = np.random.default_rng(0).uniform(0, 100, (60, 90)).astype(np.float32)
    assert Colorizer(version).chroma(light).shape == (32, 32, 2)
    wide = Colorizer(version.served(128, "aspect", flip_average=False))
    height, width = input_size(128, "aspect", 1.5)
    assert wide.chroma(light).shape == (height // 2, width // 2, 2) != (64, 64, 2)
    assert wide.chroma(light.T.copy()).shape == (width // 2, height // 2, 2)
    squashed = light[:, :60].copy()
    assert wide.chroma(squashed, 1.5).shape == (height // 2, width // 2, 2)  # the ratio of the picture counts
    panorama = np.tile(light, (1, 3))
    assert wide.chroma(panorama).shape[1] > 3 * wide.chroma(panorama).shape[0]
    np.testing.assert_array_equal(wide.chroma(light), wide.chroma(light))


def test_flip_averaging_treats_left_and_right_alike(tmp_path) -> None:
    light = np.ascontiguousarray(data.astronaut()[..., 1], np.float32) / 2.55  # noise alone would come out neutral
    both = Colorizer(make_version(tmp_path, "v1").served(64, "square", flip_average=True))
    np.testing.assert_allclose(both.chroma(light), both.chroma(light[:, ::-1].copy())[:, ::-1], atol=1e-5)
    one = Colorizer(make_version(tmp_path, "v2").served(64, "square", flip_average=False))
    assert np.abs(one.chroma(light) - one.chroma(light[:, ::-1].copy())[:, ::-1]).max() > 1e-5


def test_an_unknown_framing_is_refused(tmp_path) -> None:
    version = make_version(tmp_path, "v1")
    path = version.directory / "config.json"
    path.write_text(path.read_text().replace('"flip_average"', '"framing": "round", "flip_average"'))
    with pytest.raises(WeightsError, match="framing"):
        open_version(version.directory)
