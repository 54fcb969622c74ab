"""One look over a page, in strips: a small copy for the net and the judges, and a histogram of L*."""

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from worker import profiles
from worker.header import Header

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.unsignedinteger]

#: side of the small copy, px; the net works at or below this
SMALL_PX: Final = 512
#: beyond this ratio of sides a panorama's small copy is squashed, which bounds its size
_LONGEST_RATIO: Final = 16
_HISTOGRAM_STEPS: Final = 400
#: about as many pixels are looked at for the histogram
_HISTOGRAM_PIXELS: Final = 4_000_000


def survey(strips: Iterator[Codes], header: Header, tone: profiles.Tone) -> tuple[Floats, npt.NDArray[np.int64]]:
    """One pass over the page: a small copy by exact area averaging, and a histogram of L*.

    Returns:
        L*, a*, b* of the small copy `[h, w, 3]`, and pixels per step of L* `[400]`.
    """
    width, height = _small_size(header.width, header.height)
    total = np.zeros((height, width, 1 if header.gray else 3), np.float32)
    histogram = np.zeros(_HISTOGRAM_STEPS, np.int64)
    step = max(1, int((header.width * header.height / _HISTOGRAM_PIXELS) ** 0.5))
    top = 0
    for codes in strips:
        values = _narrow(codes, tone, width)
        first, weights = _overlap(top, len(codes), header.height, height)
        for cell, row in enumerate(weights, first):
            near = np.flatnonzero(row)
            total[cell] += np.tensordot(row[near], values[near], axes=1)
        light = tone.lightness(codes[::step, ::step]) * np.float32(_HISTOGRAM_STEPS / 100)
        steps = np.minimum(light.astype(np.int32), _HISTOGRAM_STEPS - 1)
        histogram += np.bincount(steps.ravel(), minlength=_HISTOGRAM_STEPS)
        top += len(codes)
    if header.gray:
        total = np.concatenate([total, np.zeros((height, width, 2), np.float32)], axis=2)
    return total, histogram


def _small_size(width: int, height: int) -> tuple[int, int]:
    """Size of the small copy: at most `SMALL_PX` on the short side, in proportion for panoramas beyond 2:1."""
    short = min(width, height, SMALL_PX)
    ratio = max(width, height) / min(width, height)
    longest = SMALL_PX if ratio <= 2 else round(SMALL_PX * min(ratio, _LONGEST_RATIO))
    long = min(max(width, height), longest)
    return (long, short) if width >= height else (short, long)


def _narrow(codes: Codes, tone: profiles.Tone, width: int) -> Floats:
    """A strip's L* (and a*, b* of RGB) averaged to `width` columns: `[rows, width, 1 or 3]`."""
    size = (width, len(codes))
    light = cv2.resize(tone.lightness(codes), size, interpolation=cv2.INTER_AREA).reshape(len(codes), width)
    if codes.ndim == 2:
        return light[..., None]
    values = tone.lab(cv2.resize(codes, size, interpolation=cv2.INTER_AREA).reshape(len(codes), width, 3))
    values[..., 0] = light
    return values


def _overlap(top: int, count: int, height: int, cells: int) -> tuple[int, Floats]:
    """The first cell that a strip's rows reach, and the share of each such cell that each row covers.

    Shares `[some cells, count]`; those of one cell sum to 1 over the page.
    """
    edges = np.arange(top, top + count + 1) * (cells / height)
    first, last = int(edges[0]), min(int(np.ceil(edges[-1])), cells)
    cell = np.arange(first, max(last, first + 1))[:, None]
    shares = np.minimum(edges[None, 1:], cell + 1) - np.maximum(edges[None, :-1], cell)
    return first, np.maximum(shares, 0.0).astype(np.float32)
