"""Chroma from the net's low resolution to the scan's rows, guided by the scan's own L*, strip by strip.

Method: bicubic chroma plus a guided detail term, `ab = up(ab_lo) + up(A) · (L - up(L_lo))`, where A is the slope of a
local linear model of chroma on lightness (guided filter: He, Sun, Tang, ECCV 2010; the slope taken at low resolution:
He, Sun, arXiv 1505.00996). Because `L - up(L_lo)` averages to nothing over a low-resolution cell, the picture, shrunk
again, has the net's chroma: the residual correction that a plain guided filter needs is built in, in one pass.
`tests/bench/bench_imaging.py` compares it with nearest, bilinear, bicubic, guided and guided + residual.
"""

import dataclasses
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: half side of the local window, in low-resolution cells
RADIUS: Final = 1
#: variance of L* (in L*²) below which chroma is taken to be independent of lightness
SMOOTHNESS: Final = 30.0
#: larger matrix products wake OpenBLAS' threads, which only get in the way of those that colour strips
_SINGLE_THREAD_PRODUCT = 200_000
_BLOCK_COLUMNS = 256
_CUBIC_SHARPNESS = -0.75  # OpenCV's bicubic, so that rows and columns are interpolated alike


class ChromaUpsampler:
    """One picture's chroma at full resolution, by rows; the same values however the rows are cut into strips.

    Memory: the low-resolution planes, and one strip at a time.
    """

    def __init__(self, chroma: Floats, light: Floats, width: int, height: int) -> None:
        """Prepare the low-resolution planes.

        Args:
            chroma: a*, b* of the whole picture, `[h, w, 2]`, any size.
            light: a small copy of its L* 0..100, `[hs, ws]`, any size.
            width: of the full picture, px.
            height: of the full picture, px.
        """
        self._width, self._height = width, height
        cells = (min(chroma.shape[1], width), min(chroma.shape[0], height))
        coarse = cv2.resize(chroma, cells, interpolation=cv2.INTER_AREA).reshape(cells[1], cells[0], 2)
        coarse_light = cv2.resize(light, cells, interpolation=cv2.INTER_AREA).reshape(cells[1], cells[0])
        slope = _slope(coarse_light, coarse)
        #: planes for bicubic (a, b, L) and for bilinear interpolation (slope of a, slope of b), `[h, n, w]`
        self._smooth = np.stack([coarse[..., 0], coarse[..., 1], coarse_light], axis=1)
        self._slopes = np.stack([slope[..., 0], slope[..., 1]], axis=1)
        self._columns = _column_blocks(width, cells[0])

    def rows(self, top: int, light: Floats) -> tuple[Floats, Floats]:
        """a* and b* of the rows from `top` on.

        Args:
            top: index of the first row.
            light: their L* at full resolution, `[rows, width]`.

        Returns:
            a* and b*, `[rows, width]` float32 each; not yet compressed to any gamut.
        """
        count, cells = light.shape[0], self._smooth.shape[0]
        cubic = _cubic_weights(top, count, self._height, cells)
        linear = _linear_weights(top, count, self._height, cells)
        a, b, base = self._widen(_between(cubic, self._smooth), "cubic")
        slope_a, slope_b = self._widen(_between(linear, self._slopes), "linear")
        detail = light - base
        slope_a *= detail
        slope_b *= detail
        a += slope_a
        b += slope_b
        return a, b

    def _widen(self, planes: Floats, weights: Literal["cubic", "linear"]) -> Floats:
        """`[rows, n, w]` -> `[n, rows, width]`, block by block of columns."""
        rows, number, cells = planes.shape
        stacked = np.ascontiguousarray(planes.transpose(1, 0, 2)).reshape(number * rows, cells)
        wide = np.empty((number * rows, self._width), np.float32)
        for block in self._columns:
            wide[:, block.columns] = _product(stacked[:, block.cells], getattr(block, weights))
        return wide.reshape(number, rows, self._width)


@dataclasses.dataclass(frozen=True)
class _ColumnBlock:
    """Some of the picture's columns and the few cells they are interpolated from."""

    columns: slice
    cells: slice
    cubic: Floats  # [cells, columns]
    linear: Floats


def _column_blocks(width: int, cells: int) -> list[_ColumnBlock]:
    """All columns, in blocks of at most eight cells.

    A product with a matrix of weights is quicker than `cv2.resize`, which interpolates between rows as well.
    """
    step = min(max(1, round(8 * width / cells)), _BLOCK_COLUMNS)
    blocks = []
    for left in range(0, width, step):
        count = min(step, width - left)
        first = max(int((left + 0.5) * cells / width - 0.5) - 2, 0)
        last = min(int((left + count) * cells / width) + 3, cells)
        near = slice(first, last)
        cubic, linear = (
            np.ascontiguousarray(make(left, count, width, cells)[:, near].T)
            for make in (_cubic_weights, _linear_weights)
        )
        blocks.append(_ColumnBlock(slice(left, left + count), near, cubic, linear))
    return blocks


def _between(weights: Floats, planes: Floats) -> Floats:
    """Rows of weights `[rows, h]` applied to `[h, n, w]` -> `[rows, n, w]`; most weights of a strip are 0."""
    near = np.flatnonzero(weights.any(axis=0))
    some = slice(int(near[0]), int(near[-1]) + 1)
    mixed = _product(np.ascontiguousarray(weights[:, some]), planes[some].reshape(some.stop - some.start, -1))
    return mixed.reshape(len(weights), *planes.shape[1:])


def _product(left: Floats, right: Floats) -> Floats:
    """`left @ right` in pieces too small to wake OpenBLAS' threads."""
    columns = max(1, min(right.shape[1], _SINGLE_THREAD_PRODUCT // right.shape[0]))
    rows = max(1, _SINGLE_THREAD_PRODUCT // (right.shape[0] * columns))
    out = np.empty((left.shape[0], right.shape[1]), np.float32)
    for top in range(0, len(out), rows):
        for first in range(0, right.shape[1], columns):
            part = (slice(top, top + rows), slice(first, first + columns))
            out[part] = left[part[0]] @ right[:, part[1]]
    return out


def _slope(light: Floats, chroma: Floats) -> Floats:
    """Slope of chroma on lightness in each cell's window, smoothed: `[h, w]`, `[h, w, 2]` -> `[h, w, 2]`."""
    side = (2 * RADIUS + 1, 2 * RADIUS + 1)

    def mean(plane: Floats) -> Floats:
        """Mean over the window around each cell."""
        # 3-tap windows on rows of one cell have no neighbour to mirror: REPLICATE is defined for every size
        blurred: Floats = cv2.blur(plane, side, borderType=cv2.BORDER_REPLICATE)
        return blurred

    mean_light = mean(light)
    variance = np.maximum(mean(light * light) - mean_light * mean_light, np.float32(0.0))
    slopes = [
        mean(
            ((mean(light * plane) - mean_light * mean(plane)) / (variance + np.float32(SMOOTHNESS))).astype(np.float32)
        )
        for plane in (np.ascontiguousarray(chroma[..., 0]), np.ascontiguousarray(chroma[..., 1]))
    ]
    return np.stack(slopes, axis=-1).astype(np.float32)


def _positions(top: int, count: int, height: int, cells: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Each row's (or column's) place among the cells (pixel centres): the cell before it and the fraction beyond."""
    place = (np.arange(top, top + count) + 0.5) * (cells / height) - 0.5
    before = np.floor(place)
    return before.astype(np.int64), place - before


def _scatter(
    before: npt.NDArray[np.int64], taps: list[tuple[int, npt.NDArray[np.float64]]], count: int, cells: int
) -> Floats:
    """Taps as a matrix `[count, cells]`; taps beyond the edge fall on the edge."""
    weights = np.zeros((count, cells), np.float64)
    for offset, value in taps:
        np.add.at(weights, (np.arange(count), np.clip(before + offset, 0, cells - 1)), value)
    return weights.astype(np.float32)


def _linear_weights(top: int, count: int, height: int, cells: int) -> Floats:
    """Bilinear interpolation of `cells` rows at picture rows `top`.. as a matrix `[count, cells]`."""
    before, t = _positions(top, count, height, cells)
    return _scatter(before, [(0, 1 - t), (1, t)], count, cells)


def _cubic_weights(top: int, count: int, height: int, cells: int) -> Floats:
    """Bicubic (Keys 1981) interpolation of `cells` rows at picture rows `top`.. as a matrix `[count, cells]`."""
    before, t = _positions(top, count, height, cells)
    s = _CUBIC_SHARPNESS
    first = ((s * (t + 1) - 5 * s) * (t + 1) + 8 * s) * (t + 1) - 4 * s
    second = ((s + 2) * t - (s + 3)) * t * t + 1
    third = ((s + 2) * (1 - t) - (s + 3)) * (1 - t) * (1 - t) + 1
    return _scatter(before, [(-1, first), (0, second), (1, third), (2, 1 - first - second - third)], count, cells)
