"""Chroma from the net's low resolution to the scan's rows, guided by the scan's own L*, strip by strip.

Method: bicubic chroma plus a guided detail term, `ab = up(ab_lo) + up(A) · (L - up(L_lo))`, where A is the slope of a
local linear model of chroma on lightness (guided filter: He, Sun, Tang, ECCV 2010; the slope taken at low resolution:
He, Sun, arXiv 1505.00996). Because `L - up(L_lo)` averages to nothing over a low-resolution cell, the picture, shrunk
again, has the net's chroma: the residual correction that a plain guided filter needs is built in, in one pass.
`tests/bench/bench_imaging.py` compares it with nearest, bilinear, bicubic, guided and guided + residual.
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: half side of the local window, in low-resolution cells
RADIUS: Final = 1
#: variance of L* (in L*²) below which chroma is taken to be independent of lightness
SMOOTHNESS: Final = 30.0
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
        #: planes for bicubic (a, b, L) and for bilinear interpolation (slope of a, slope of b), `[h, n·w]`
        self._smooth = np.concatenate([coarse[..., 0], coarse[..., 1], coarse_light], axis=1)
        self._slopes = np.concatenate([slope[..., 0], slope[..., 1]], axis=1)

    def rows(self, top: int, light: Floats) -> tuple[Floats, Floats]:
        """a* and b* of the rows from `top` on.

        Args:
            top: index of the first row.
            light: their L* at full resolution, `[rows, width]`.

        Returns:
            a* and b*, `[rows, width]` float32 each; not yet compressed to any gamut.
        """
        count, cells = light.shape[0], self._smooth.shape[0]
        a, b, base = self._widen(_cubic_weights(top, count, self._height, cells) @ self._smooth, 3, cv2.INTER_CUBIC)
        slope_a, slope_b = self._widen(
            _linear_weights(top, count, self._height, cells) @ self._slopes, 2, cv2.INTER_LINEAR
        )
        detail = light - base
        return a + slope_a * detail, b + slope_b * detail

    def _widen(self, planes: Floats, number: int, interpolation: int) -> list[Floats]:
        """`[rows, number · w]` -> planes `[rows, width]`."""
        size = (self._width, planes.shape[0])
        return [
            cv2.resize(np.ascontiguousarray(plane), size, interpolation=interpolation).reshape(size[1], size[0])
            for plane in np.split(planes, number, axis=1)
        ]


def _slope(light: Floats, chroma: Floats) -> Floats:
    """Slope of chroma on lightness in each cell's window, smoothed: `[h, w]`, `[h, w, 2]` -> `[h, w, 2]`."""
    side = (2 * RADIUS + 1, 2 * RADIUS + 1)

    def mean(plane: Floats) -> Floats:
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
    """Each row's place among the cells (pixel centres): the cell before it and the fraction beyond."""
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
