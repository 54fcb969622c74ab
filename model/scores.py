"""From figures per photo to figures per set: means, the agreement R, and bootstrap intervals."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from model.metrics import agreement

#: what a report says of a set, in the order of its columns
FIGURES = ("R", "psnr", "ab_l1", "de00", "cf", "cf_truth", "d_cf", "chroma_ratio", "d_a", "d_b", "lpips", "two_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoScore:
    """One photo: ours against the original, both 256x256."""

    file: str
    category: str
    psnr: float
    ab_l1: float
    de00: float
    cf: float
    cf_truth: float
    chroma: float
    chroma_truth: float
    #: signed mean differences, ours - original: Δa > 0 too red, Δb > 0 too yellow
    d_a: float
    d_b: float
    #: Σab², Σâb², Σab·âb for the agreement
    truth_truth: float
    ours_ours: float
    truth_ours: float
    #: LPIPS-AlexNet; no number where its weights were not given
    lpips: float = float("nan")
    #: mean |Δab| between serving at the version's size and at another; no number where that was not tried
    two_size: float = float("nan")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetScore:
    """A set of photos: each of `FIGURES`, and the 95 % bootstrap interval of each where one was asked for."""

    photos: int
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def _figures(table: dict[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each of `FIGURES` for every row of `weights` `[draws, photos]` (how often a photo was drawn)."""
    mean = {name: weights @ values / weights.sum(1) for name, values in table.items()}
    plain = ("psnr", "ab_l1", "de00", "cf", "cf_truth", "d_a", "d_b", "lpips", "two_size")
    sums = [mean[name] for name in ("truth_truth", "ours_ours", "truth_ours")]
    figures = {name: mean[name] for name in plain} | {
        "R": np.array([agreement(*(float(v) for v in three)) for three in zip(*sums, strict=True)]),
        "d_cf": np.abs(mean["cf"] - mean["cf_truth"]),
        "chroma_ratio": mean["chroma"] / np.maximum(mean["chroma_truth"], 1e-9),
    }
    return {name: figures[name] for name in FIGURES if np.isfinite(figures[name]).all()}


def score_set(rows: Sequence[PhotoScore], draws: int, seed: int = 0) -> SetScore:
    """Figures of a set, with percentile bootstrap intervals over photos (Efron 1979).

    Args:
        rows: at least one photo.
        draws: bootstrap draws; 0 for no intervals.
        seed: of the draws.
    """
    names = [f.name for f in dataclasses.fields(PhotoScore) if f.name not in ("file", "category")]
    table = {name: np.array([getattr(row, name) for row in rows], np.float64) for name in names}
    once = _figures(table, np.ones((1, len(rows))))
    intervals: dict[str, tuple[float, float]] = {}
    if draws and len(rows) > 1:
        random = np.random.default_rng(seed)
        weights = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), draws).astype(np.float64)
        for name, values in _figures(table, weights).items():
            low, high = np.percentile(values, [2.5, 97.5])
            intervals[name] = (float(low), float(high))
    return SetScore(photos=len(rows), figures={n: float(v[0]) for n, v in once.items()}, intervals=intervals)


def score_categories(rows: Sequence[PhotoScore], draws: int, seed: int = 0) -> dict[str, SetScore]:
    """`score_set` of each category, by name."""
    names = sorted({row.category for row in rows})
    return {name: score_set([row for row in rows if row.category == name], draws, seed) for name in names}
