import numpy as np
import pytest
from scipy.stats import bootstrap
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio

from model.metrics import ab_l1, agreement, ciede2000, colour_sums, colourfulness, mean_chroma, psnr
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
