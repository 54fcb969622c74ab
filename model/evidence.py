"""Does a picture show anything? Where it does not, the net would only repeat its training set's favourite colours.

Two things depict nothing, and both are told by how a picture's detail is shared out over scales, as part of its own
contrast, so that fading, fog and a weak print change nothing:

Smooth light (an empty page under a lamp, a gradient) has no sharp detail. Sharpest detail over contrast, on a copy of
64 px, is at least 0.74 on the 35 scans of `scans/historic`, 0.49 on `eval/photos`, 0.35 on 700 training photographs,
200 of them skies; the same when they are faded to a tenth of their contrast, 0.21 when blurred by 1 % of their side;
and at most 0.07 on linear, round and wavy gradients, grainy or not.

Noise (grain on an empty page) halves its contrast with every octave, where photographs have about as much in each
(Field, J. Opt. Soc. Am. A 4, 1987), and its values are normally distributed, where edges make photographs' heavy-tailed
(Ruderman and Bialek, Phys. Rev. Lett. 73, 1994). Both must speak for noise. Contrast two octaves further up is 0.18 to
0.26 of what it was on white noise; the larger of two such ratios is at least 0.43 on 1500 photographs, and that of
kurtosis at least 3.1.

Noise that was smoothed on purpose is not told from clouds and foliage, and is coloured. A rule for it was tried and
left out: tails and skewness of the octaves that have contrast, which are those of a Gaussian field. Limits that find
three quarters of noise smoothed over 4 to 16 px of 512 would also leave gray 1 of 4,500 photographs, and 1 in 66 of
those faded to 0.3 of their contrast under grain.
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: a picture whose L* differs by less than this shows nothing
FLAT_RANGE: Final = 1.0
#: sharpest detail over contrast up to which a picture shows nothing, and from which it counts in full
DETAIL: Final = (0.09, 0.18)
#: contrast two octaves up over contrast up to which a picture may be noise, and from which it is none
FALL: Final = (0.28, 0.36)
#: largest kurtosis of any octave (3 for a normal distribution), likewise
TAILS: Final = (3.6, 4.2)
_DETAIL_PX: Final = 64
_NOISE_PX: Final = 128
_LONGEST_RATIO: Final = 24.0


def colour_share(light: Floats) -> float:
    """The part of the net's colours that a picture is to get.

    Args:
        light: its L* 0..100, `[H, W]`, finite, any size.

    Returns:
        0 for a picture that shows nothing, 1 for every photograph, between them for what is nearly without detail.
    """
    if np.ptp(light) < FLAT_RANGE:
        return 0.0
    return min(_rise(_sharpest(light), DETAIL), _structured(light))


def _rise(figure: float, limits: tuple[float, float]) -> float:
    """0 up to the lower limit, 1 from the upper one on."""
    return float(np.clip((figure - limits[0]) / (limits[1] - limits[0]), 0.0, 1.0))


def _sharpest(light: Floats) -> float:
    """99.9th percentile of what a Gaussian of 1 px takes away, over the standard deviation; of a copy of 64 px."""
    height, width = light.shape
    scale = min(1.0, _DETAIL_PX / min(height, width))
    longest = _DETAIL_PX * _LONGEST_RATIO
    size = (max(1, round(min(width * scale, longest))), max(1, round(min(height * scale, longest))))
    small = cv2.resize(light, size, interpolation=cv2.INTER_AREA).reshape(size[::-1])
    fine = np.abs(small - cv2.GaussianBlur(small, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE))
    return float(np.quantile(fine, 0.999) / max(float(small.std()), 1e-6))


def _structured(light: Floats) -> float:
    """1 for what is surely no noise, 0 for white noise; pictures too small to tell count as no noise."""
    if min(light.shape) < _NOISE_PX:
        return 1.0
    plane = cv2.resize(light, (_NOISE_PX, _NOISE_PX), interpolation=cv2.INTER_AREA)
    contrasts, tails = [], 0.0
    for _ in range(4):
        blurred = cv2.GaussianBlur(plane, (0, 0), 1.0)
        octave = (plane - blurred)[2:-2, 2:-2].astype(np.float64)  # without the mirrored border
        octave -= octave.mean()
        variance = max(float((octave**2).mean()), 1e-12)
        contrasts.append(variance**0.5)
        tails = max(tails, float((octave**4).mean()) / variance**2)
        plane = cv2.resize(blurred, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    fall = max(contrasts[3] / contrasts[1], contrasts[2] / contrasts[0])
    return max(_rise(fall, FALL), _rise(tails, TAILS))
