import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import bootstrap
from skimage import data
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio

from model.evaluate import compare
from model.lpips import Lpips, LpipsError, find_alexnet
from model.metrics import ab_l1, agreement, ciede2000, colour_sums, colourfulness, mean_chroma, psnr
from model.photos import Photo
from model.scores import PhotoScore, score_categories, score_set

#: a few rows of table 1 of Sharma, Wu & Dalal 2005: Lab, Lab, ΔE00
SHARMA = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0009), 7.1792),
    ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
    ((50.0, -0.001, 2.49), (50.0, 0.0011, -2.49), 4.7461),
    ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (56.0, -27.0, -3.0), 31.9030),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((63.0109, -31.0961, -5.8663), (62.8187, -29.7946, -4.0864), 1.2630),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("one", "other", "expected"), SHARMA)
def test_ciede2000_gives_the_published_table(one, other, expected):
    assert ciede2000(np.array(one), np.array(other)) == pytest.approx(expected, abs=1e-4)
    assert ciede2000(np.array(other), np.array(one)) == pytest.approx(expected, abs=1e-4)


def test_ciede2000_agrees_with_scikit_image():
    random = np.random.default_rng(1)
    one, other = (rgb2lab(random.random((40, 40, 3))) for _ in range(2))
    np.testing.assert_allclose(ciede2000(one, other), deltaE_ciede2000(one, other), atol=1e-6)


def test_psnr_agrees_with_scikit_image_and_is_bounded():
    random = np.random.default_rng(2)
    one, other = (random.integers(0, 256, (30, 20, 3), dtype=np.uint8) for _ in range(2))
    assert psnr(one, other) == pytest.approx(peak_signal_noise_ratio(one, other))
    assert 130 < psnr(one, one) < 140


def test_psnr_by_hand():
    flat = np.full((6, 5, 3), 100, np.uint8)
    assert psnr(flat, flat + 1) == pytest.approx(48.1308, abs=1e-4)  # MSE 1: 20·log10(255)
    assert psnr(flat - 100, flat + 155) == pytest.approx(0)  # black against white
    one = flat.copy()
    one[0, 0, 0] = 130  # MSE 900/90 = 10
    assert psnr(flat, one) == psnr(one, flat) == pytest.approx(38.1308, abs=1e-4)


#: gray, redder, greener, yellower and bluer of about the same lightness, and the signs of Δa and Δb against gray
TINTS = [((150, 110, 115), 1, 0), ((100, 128, 115), -1, 0), ((122, 118, 80), 0, 1), ((115, 120, 160), 0, -1)]


@pytest.mark.parametrize(("tint", "redder", "yellower"), TINTS)
def test_differences_are_ours_minus_the_original(tint, redder, yellower):
    gray, ours = np.full((8, 8, 3), 119, np.uint8), np.full((9, 7, 3), tint, np.uint8)
    score = compare(Photo("x.png", "x", Path()), "x", gray, ours)
    lab = rgb2lab(np.array(tint, np.uint8)[None, None])[0, 0]
    assert (score.d_a, score.d_b) == pytest.approx((lab[1], lab[2]), abs=0.3)  # OpenCV interpolates
    assert score.d_a * redder > 5 * abs(redder) - 1e-9
    assert score.d_b * yellower > 5 * abs(yellower) - 1e-9
    back = compare(Photo("x.png", "x", Path()), "x", ours, gray)
    assert (back.d_a, back.d_b) == pytest.approx((-score.d_a, -score.d_b))


def test_colourfulness_of_hand_made_pictures():
    gray = np.full((4, 4, 3), 90, np.uint8)
    assert colourfulness(gray) == 0
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 100  # no spread: 0.3 * hypot(100, 50)
    assert colourfulness(red) == pytest.approx(0.3 * np.hypot(100, 50))
    half = red.copy()
    half[:2] = 0  # spread 50 and 25 about means 50 and 25
    assert colourfulness(half) == pytest.approx(1.3 * np.hypot(50, 25))


def test_ab_l1_chroma_and_agreement():
    truth, ours = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    truth[..., 1], truth[..., 2] = 3, 4
    ours[..., 1], ours[..., 2] = 6, 8
    assert ab_l1(truth, ours) == pytest.approx(3.5)
    assert mean_chroma(truth) == pytest.approx(5)
    assert agreement(*colour_sums(truth, ours)) == pytest.approx(1)
    ours[..., 1], ours[..., 2] = -4, 3
    assert agreement(*colour_sums(truth, ours)) == pytest.approx(0)
    assert agreement(*colour_sums(truth, np.zeros_like(truth))) == 0


def row(name: str, category: str, ours: float, truth: float = 10.0) -> PhotoScore:
    return PhotoScore(
        file=name, category=category, psnr=20 + ours, ab_l1=ours, de00=ours, cf=ours, cf_truth=truth, chroma=ours,
        chroma_truth=truth, d_a=ours, d_b=-ours, truth_truth=truth**2, ours_ours=ours**2, truth_ours=ours * truth,
    )  # fmt: skip


def test_set_scores_are_ratios_of_means_with_intervals_around_them():
    rows = [row("a_1", "a", 4.0), row("a_2", "a", 8.0), row("b_1", "b", 6.0)]
    whole = score_set(rows, draws=200)
    assert whole.photos == 3
    assert whole.figures["chroma_ratio"] == pytest.approx(0.6)
    assert whole.figures["d_cf"] == pytest.approx(4)
    assert whole.figures["R"] == pytest.approx(18 * 10 / np.sqrt(300 * 116))
    for name in ("R", "psnr", "chroma_ratio", "d_b"):
        low, high = whole.intervals[name]
        assert low <= whole.figures[name] <= high
    assert score_set(rows, draws=200) == whole
    categories = score_categories(rows, draws=0)
    assert {name: part.photos for name, part in categories.items()} == {"a": 2, "b": 1}
    assert categories["b"].figures["psnr"] == pytest.approx(26)
    assert categories["b"].intervals == {}


def test_intervals_agree_with_scipys_bootstrap():
    random = np.random.default_rng(4)
    rows = [row(f"a_{i}", "a", float(value)) for i, value in enumerate(random.normal(10, 3, 60))]
    psnrs = [r.psnr for r in rows]
    theirs = bootstrap((psnrs,), np.mean, n_resamples=4000, method="percentile", rng=random).confidence_interval
    assert score_set(rows, draws=4000).intervals["psnr"] == pytest.approx(tuple(theirs), abs=0.1)


def test_intervals_of_the_agreement_agree_with_scipys_bootstrap():
    """R is no mean of photos: sums are drawn together."""
    random = np.random.default_rng(5)
    truth = random.gamma(2, 8, 80)
    rows = [row(f"a_{i}", "a", float(t * random.normal(0.8, 0.9)), float(t)) for i, t in enumerate(truth)]
    sums = [np.array([getattr(r, name) for r in rows]) for name in ("truth_truth", "ours_ours", "truth_ours")]

    def together(tt, oo, to, axis):
        return to.sum(axis) / np.sqrt(tt.sum(axis) * oo.sum(axis))

    theirs = bootstrap(
        sums, together, n_resamples=4000, method="percentile", paired=True, vectorized=True, rng=random
    ).confidence_interval
    ours = score_set(rows, draws=4000).intervals["R"]
    assert theirs.high - theirs.low > 0.1
    assert ours == pytest.approx(tuple(theirs), abs=0.02)


REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "score"


def photograph(name: str, width: int, height: int) -> np.ndarray:
    return cv2.resize(getattr(data, name)(), (width, height), interpolation=cv2.INTER_AREA)


def recoloured(rgb: np.ndarray) -> np.ndarray:
    """Half the colour, a little too red, and darker by a shade."""
    lab = rgb2lab(rgb) * (0.98, 0.5, 0.6) + (0, 4, -3)
    return (np.clip(lab2rgb(lab), 0, 1) * 255 + 0.5).astype(np.uint8)


def test_the_reference_script_has_the_same_figures(tmp_path):
    if not (REFERENCE / "score.py").exists():
        pytest.skip("the reference score.py is not on this machine")
    pairs = {}
    for name, width, height in (("astronaut", 300, 280), ("coffee", 500, 333), ("chelsea", 200, 256)):
        truth = photograph(name, width, height)
        pairs[name] = truth, recoloured(truth)
        for folder, picture in zip(("truth", "ours"), pairs[name], strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / folder / f"{name}_x.png"), picture[..., ::-1])
    command = [sys.executable, str(REFERENCE / "score.py"), *(str(tmp_path / part) for part in ("truth", "ours"))]
    bare = {name: value for name, value in os.environ.items() if name != "LPIPS_WEIGHTS"}
    subprocess.run([*command, "--json", str(tmp_path / "f.json")], check=True, env=bare, capture_output=True)
    theirs = json.loads((tmp_path / "f.json").read_text())
    ours = [compare(Photo(f"{name}_x.png", "x", Path()), name, *pair) for name, pair in sorted(pairs.items())]
    same = {
        "psnr": "psnr", "ab_l1": "abL1", "de00": "dE00", "cf": "cf", "cf_truth": "cf_true", "chroma": "chroma",
        "chroma_truth": "chroma_true", "d_a": "da", "d_b": "db", "truth_truth": "xx", "ours_ours": "yy",
        "truth_ours": "xy",
    }  # fmt: skip
    for row_, found in zip(theirs["rows"], ours, strict=True):
        assert {name: getattr(found, name) for name in same} == pytest.approx(
            {name: row_[other] for name, other in same.items()}, rel=1e-3
        )
    figures = score_set(ours, draws=0).figures
    of_sets = {"R": "R", "psnr": "psnr", "d_cf": "dCF", "chroma_ratio": "chroma_ratio", "d_a": "da", "d_b": "db"}
    assert {name: figures[name] for name in of_sets} == pytest.approx(
        {name: theirs["summary"]["all"][other] for name, other in of_sets.items()}, rel=1e-3
    )


def test_lpips_agrees_with_the_reference_in_torch(monkeypatch):
    if not (REFERENCE / "lpips_np.py").exists():
        pytest.skip("the reference lpips_np.py is not on this machine")
    torch = pytest.importorskip("torch", reason="the reference computes in torch, which is not installed")
    try:
        weights = find_alexnet()
    except LpipsError as error:
        pytest.skip(str(error))
    monkeypatch.syspath_prepend(str(REFERENCE))
    reference, ours = importlib.import_module("lpips_np").LPIPS(weights, "alexnet"), Lpips(weights)
    for name in ("astronaut", "coffee"):
        truth = photograph(name, 256, 256)
        pair = [truth, recoloured(truth)]
        tensors = [torch.from_numpy(p.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None] for p in pair]
        with torch.no_grad():
            theirs = float(reference(*tensors)[0])
        assert theirs > 0.02
        assert ours.distance(*pair) == pytest.approx(theirs, rel=1e-3)
