"""What kind of picture a scan is, judged from its pixels: gray, near-neutral, toned, colour, bitonal or blank.

Thresholds were set on `scans/historic`, `scans/formats`, made files and the photographs that weights are judged on
(`eval/photos`); tests/integration hold them. Measured afterwards on 1,350 photographs of 176 px that had no part in it
(`photos/pacs_photo`, `photos/weather_sky`): 1,337 are colour, 13 toned, none is near-neutral, bitonal or blank.
"""

import enum
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class InputClass(enum.StrEnum):
    """What a scan shows."""

    GRAY = "gray"  # one channel, or three equal ones
    NEAR_NEUTRAL = "near-neutral"  # RGB whose chroma is scanner noise
    TONED = "toned"  # sepia, cyanotype, yellowed: one colour per lightness
    COLOUR = "colour"  # already has colours of its own
    BITONAL = "bitonal"  # two tones: line art, print, text
    BLANK = "blank"  # nothing on it


#: chroma (99th percentile, L*a*b* units) up to which RGB counts as gray
NEUTRAL_CHROMA: Final = 5.0
#: spread of chroma (rms) around its mean at each lightness, above which the colours are the picture's own: toned scans
#: of `scans/historic` reach 2.4, the least colourful photograph of `eval/photos` has 3.7; of 1,350 others 13 have less
#: than 3.2, the least 2.2, so that no limit parts the two without error
TONE_SPREAD: Final = 3.2
#: standard deviation of L* under which nothing is on the page
BLANK_SPREAD: Final = 0.5
#: share of pixels within `_TONE_WIDTH` L* of the darkest or lightest tone, above which there are only two tones
BITONAL_SHARE: Final = 0.97
_TONE_WIDTH: Final = 6.0
_TONE_STEPS: Final = 24


def chroma_spread(values: Floats) -> float:
    """How far colours differ at one and the same lightness: rms distance of (a*, b*) from its mean per L* band.

    Args:
        values: L*, a*, b* of a small copy, `[h, w, 3]`.
    """
    bands = _bands(values)
    distance = values[..., 1:].reshape(-1, 2) - _means(values, bands)[bands]
    return float(np.sqrt((distance.astype(np.float64) ** 2).sum(axis=1).mean()))


def tint(values: Floats) -> Floats:
    """The colour of a toned print at each lightness.

    Args:
        values: L*, a*, b* of a small copy, `[h, w, 3]`.

    Returns:
        a*, b* at 24 even steps of L*, `[24, 2]`; steps that do not occur are filled from their neighbours.
    """
    bands = _bands(values)
    means, there = _means(values, bands), np.flatnonzero(np.bincount(bands, minlength=_TONE_STEPS))
    steps = np.arange(_TONE_STEPS)
    return np.stack([np.interp(steps, there, means[there, i]) for i in range(2)], axis=1).astype(np.float32)


def _bands(values: Floats) -> npt.NDArray[np.int64]:
    """Which of 24 steps of L* each pixel has, `[h · w]`."""
    return np.clip(values[..., 0].ravel() * (_TONE_STEPS / 100), 0, _TONE_STEPS - 1).astype(np.int64)


def _means(values: Floats, bands: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean a*, b* of each step, `[24, 2]`; 0 where there is none."""
    count = np.maximum(np.bincount(bands, minlength=_TONE_STEPS), 1)
    sums = [np.bincount(bands, values[..., i].ravel(), minlength=_TONE_STEPS) for i in (1, 2)]
    return np.stack(sums, axis=1) / count[:, None]


def two_tone_share(histogram: npt.NDArray[np.int64]) -> float:
    """Share of pixels that are nearly the darkest or nearly the lightest tone.

    Args:
        histogram: pixels per step of L*, `[n]` over 0..100.
    """
    total = histogram.sum()
    cumulative = histogram.cumsum() / max(total, 1)
    n = len(histogram)
    dark, light = (int(np.searchsorted(cumulative, q)) for q in (0.01, 0.99))
    width = round(_TONE_WIDTH * n / 100)
    if light - dark <= 4 * width:
        return 0.0
    return float((histogram[: dark + width + 1].sum() + histogram[light - width :].sum()) / total)


def classify(values: Floats, histogram: npt.NDArray[np.int64]) -> InputClass:
    """The class of a picture.

    Args:
        values: L*, a*, b* of a small copy, `[h, w, 3]`; a* = b* = 0 for a gray file.
        histogram: full-size pixels per step of L*, `[n]` over 0..100.
    """
    centres = (np.arange(len(histogram)) + 0.5) * (100 / len(histogram))
    mean = np.average(centres, weights=histogram)
    if np.sqrt(np.average((centres - mean) ** 2, weights=histogram)) < BLANK_SPREAD:
        return InputClass.BLANK
    if two_tone_share(histogram) > BITONAL_SHARE:
        return InputClass.BITONAL
    chroma = np.hypot(values[..., 1], values[..., 2])
    if not chroma.any():
        return InputClass.GRAY
    if np.quantile(chroma, 0.99) < NEUTRAL_CHROMA:
        return InputClass.NEAR_NEUTRAL
    return InputClass.TONED if chroma_spread(values) < TONE_SPREAD else InputClass.COLOUR
