"""The weights that ship: what they reach, and that nothing odd put before them comes out loud, broken or different."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from model.colorizer import Colorizer
from model.config import AB_RANGE
from model.evaluate import evaluate
from model.registry import shipped

EVALUATION = Path(__file__).parents[2].parent / "shared" / "eval" / "photos"


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer(shipped())


def text_page() -> np.ndarray:
    page = np.full((400, 300), 96, np.uint8)
    for line in range(20):
        cv2.putText(page, "Lorem ipsum dolor sit", (10, 20 + 18 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 10, 1)
    return page.astype(np.float32)


def odd_pictures() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    flat = {f"flat {level}": np.full((120, 160), level, np.float32) for level in (0, 20, 50, 80, 100)}
    return flat | {
        "gradient": np.tile(np.linspace(0, 100, 300, dtype=np.float32), (200, 1)),
        "noise": random.uniform(0, 100, (200, 200)).astype(np.float32),
        "text": text_page(),
        "not numbers": np.full((50, 50), np.nan, np.float32),
        "one pixel": np.full((1, 1), 40, np.float32),
    }


@pytest.mark.parametrize("name", odd_pictures())
def test_odd_pictures_come_out_near_neutral(colorizer, name):
    ab = colorizer.chroma(odd_pictures()[name])
    assert np.isfinite(ab).all()
    assert np.hypot(ab[..., 0], ab[..., 1]).mean() < 14
    assert np.abs(ab).max() <= AB_RANGE * shipped().saturation
    assert name == "text" or not ab.any()


def test_whatever_comes_in_ab_stays_in_range(colorizer):
    random = np.random.default_rng(1)
    gradient = np.tile(np.linspace(0, 100, 900, dtype=np.float32), (60, 1))
    for light in (gradient, random.uniform(20, 80, (40, 900)).astype(np.float32)):
        ab = colorizer.chroma(light)
        assert np.isfinite(ab).all()
        assert np.abs(ab).max() <= AB_RANGE * shipped().saturation


def test_the_same_picture_gives_the_same_bytes(colorizer):
    light = cv2.cvtColor(data.astronaut().astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 0].copy()
    first = colorizer.chroma(light)
    assert first.tobytes() == colorizer.chroma(light).tobytes() == Colorizer(shipped()).chroma(light).tobytes()


def test_photographs_of_a_package_come_out_in_colour(tmp_path):
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), getattr(data, name)()[..., ::-1])
    figures = evaluate(tmp_path, draws=0).overall.figures
    assert figures["R"] > 0.3
    assert 0.4 < figures["chroma_ratio"] < 1.4


@pytest.mark.slow
def test_the_model_cards_scores_are_reached():
    if not EVALUATION.exists():
        pytest.skip("the evaluation photographs are not on this machine")
    figures = evaluate(EVALUATION, draws=0).overall.figures
    assert figures["R"] >= 0.574  # the prototype reaches 0.5735 in this protocol
    assert 0.85 <= figures["chroma_ratio"] <= 1.1
    assert figures["d_cf"] <= 6
