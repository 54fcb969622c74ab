"""Does a picture show anything? Where it does not, the net would only repeat its training set's favourite colours.

Three things depict nothing that has a colour. Each is told from parts of the picture's own contrast, so that fading,
fog and a weak print change nothing:

Smooth light (an empty page under a lamp, a gradient) has no sharp detail. Sharpest detail over contrast, on a copy of
64 px, is at least 0.74 on the 35 scans of `scans/historic`, 0.49 on `eval/photos`, 0.35 on 700 training photographs,
200 of them skies; the same when they are faded to a tenth of their contrast, 0.21 when blurred by 1 % of their side;
and at most 0.07 on linear, round and wavy gradients, grainy or not.

Noise (grain on an empty page) halves its contrast with every octave, where photographs have about as much in each
(Field, J. Opt. Soc. Am. A 4, 1987), and its values are normally distributed, where edges make photographs' heavy-tailed
(Ruderman and Bialek, Phys. Rev. Lett. 73, 1994). Both must speak for noise. Contrast two octaves further up is 0.18 to
0.26 of what it was on white noise; the larger of two such ratios is at least 0.43 on 1500 photographs, and that of
kurtosis at least 3.1. On a copy of 64 px only the finest and the third octave are compared: at most 0.13 on noise from
64 px on, at least 0.25 on 1,300 photographs.

Noise that was smoothed on purpose is not told from clouds and foliage, and is coloured. A rule for it was tried and
left out: tails and skewness of the octaves that have contrast, which are those of a Gaussian field. Limits that find
three quarters of noise smoothed over 4 to 16 px of 512 would also leave gray 1 of 4,500 photographs, and 1 in 66 of
those faded to 0.3 of their contrast under grain.

Written and drawn pages have nothing but thin ink on paper: with all dark strokes filled up from around them
(closing), a surface without structure and without steps is left, however unevenly lit. In photographs things are
left, and their outlines: none of 5,224 photographs loses colour, nor of 2,791 when blurred by 1 % of their side,
mounted, or mounted with a caption; one of these does, a pale flower, when printed above as much text. The rule takes
4 ms, 5 on a page.
A page must also be clean between its strokes, its ink about equally deep, spread over the page, and not the same
everywhere: that lets pass birds and wires in the sky, stars, brickwork and lawns. What it costs: pages with only a few
lines or sparse drawings, pages without any margin, letters taller than a fourth of the page, text so soft that its
lines run together, and pages with pictures, large black areas or a dark surround stay with the net.
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def _surfaces(side: int, degree: int) -> Floats:
    """Polynomials in x and y up to a degree over a square grid, orthonormal: `[side², n]`."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].reshape(2, -1)
    terms = [x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.linalg.qr(np.stack(terms, axis=1))[0].astype(np.float32)


#: a picture whose L* differs by less than this shows nothing
FLAT_RANGE: Final = 1.0
#: sharpest detail over contrast up to which a picture shows nothing, and from which it counts in full
DETAIL: Final = (0.09, 0.18)
#: contrast two octaves up over contrast up to which a picture may be noise, and from which it is none
FALL: Final = (0.28, 0.36)
#: largest kurtosis of any octave (3 for a normal distribution), likewise
TAILS: Final = (3.6, 4.2)
#: contrast of the third octave over that of the first, likewise, for a picture too small for four octaves
SMALL_FALL: Final = (0.14, 0.22)
#: of a page, up to which it surely is one and from which it is none, as parts of the depth of its ink: how far its
#: paper's tone is from a smooth surface, the paper's steepest change per stroke, and the rms of what is hardly ink
PAPER: Final = (0.072, 0.085)
STEEP: Final = (0.27, 0.31)
CALM: Final = (0.110, 0.125)
#: likewise, how much deeper than most of it the deepest ink is; stars and lamps are
EVEN: Final = (1.3, 1.4)
#: from which a picture surely is a page, and up to which it is none: share of an 8 × 8 grid with ink in it, and how
#: uneven the ink lies (deviation over mean); brickwork, nets and lawns have the same everywhere
SPREAD: Final = (0.36, 0.44)
UNEVEN: Final = (0.45, 0.55)
#: a picture whose short side is below this shows nothing
TINY_PX: Final = 16
_DETAIL_PX: Final = 64
_PAGE_PX: Final = 256
#: width of what counts as a stroke, and of a cell in which strokes are looked for, as fractions of the short side
_STROKE: Final = 1 / 14
_CELLS: Final = 8
_GRID: Final = 32
_SURFACES: Final = _surfaces(_GRID, 3)
_NOISE_PX: Final = 128
_SMALL_NOISE_PX: Final = 64
_LONGEST_RATIO: Final = 24.0


def colour_share(light: Floats) -> float:
    """The part of the net's colours that a picture is to get.

    Args:
        light: its L* 0..100, `[H, W]`, finite, any size.

    Returns:
        0 for a picture that shows nothing, 1 for every photograph, between them for what is nearly without detail.
    """
    if min(light.shape) < TINY_PX or np.ptp(light) < FLAT_RANGE:
        return 0.0
    return min(_rise(_sharpest(light), DETAIL), _structured(light), 1.0 - _written(light))


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


def _written(light: Floats) -> float:
    """1 for what is surely a page of text or a line drawing, dark on light or light on dark; 0 for photographs."""
    scale = min(1.0, _PAGE_PX / min(light.shape))
    height, width = (min(round(side * scale), 4 * _PAGE_PX) for side in light.shape)
    plane = cv2.resize(light, (width, height), interpolation=cv2.INTER_AREA)
    return max(_inked(plane), _inked(np.float32(100.0) - plane))


def _inked(plane: Floats) -> float:
    """The same for dark ink alone."""
    stroke = max(3, round(min(plane.shape) * _STROKE) | 1)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (stroke, stroke))
    paper = cv2.morphologyEx(plane, cv2.MORPH_CLOSE, brush, borderType=cv2.BORDER_REPLICATE)
    ink = paper - plane
    depth, deepest = (float(value) for value in np.quantile(ink, (0.985, 0.995)))
    if depth < FLAT_RANGE:
        return 0.0
    page = 1.0 - _rise(_roughness(paper) / depth, PAPER)
    if page == 0.0:  # nearly every photograph
        return 0.0
    slopes = np.gradient(cv2.GaussianBlur(paper, (0, 0), stroke / 4))
    faint = ink[ink < 0.3 * depth]
    cells = cv2.resize((ink > 0.5 * depth).astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    return min(
        page,
        1.0 - _rise(float(np.quantile(np.hypot(*slopes), 0.99)) * stroke / depth, STEEP),
        1.0 - _rise(float((faint.astype(np.float64) ** 2).mean()) ** 0.5 / depth, CALM),
        1.0 - _rise(deepest / depth, EVEN),
        _rise(float((cells > 0.01).mean()), SPREAD),
        _rise(float(cells.std() / cells.mean()), UNEVEN),
    )


def _roughness(paper: Floats) -> float:
    """What is left of a plane's tones, rms, when a cubic surface has been fitted to them: the light on a bent page."""
    grid = cv2.resize(paper, (_GRID, _GRID), interpolation=cv2.INTER_AREA).ravel()
    return float((grid - _SURFACES @ (_SURFACES.T @ grid)).std())


def _structured(light: Floats) -> float:
    """1 for what is surely no noise, 0 for white noise; below 64 px there is too little to tell: no noise."""
    if min(light.shape) >= _NOISE_PX:
        contrasts, tails = _octaves(light, _NOISE_PX, 4)
        fall = _rise(max(contrasts[3] / contrasts[1], contrasts[2] / contrasts[0]), FALL)
        return max(fall, _rise(max(tails), TAILS))
    if min(light.shape) >= _SMALL_NOISE_PX:
        contrasts, tails = _octaves(light, _SMALL_NOISE_PX, 3)
        # the third octave has 150 values left: enough for their contrast, too few for their tails
        return max(_rise(contrasts[2] / contrasts[0], SMALL_FALL), _rise(max(tails[:2]), TAILS))
    return 1.0


def _octaves(light: Floats, side: int, count: int) -> tuple[list[float], list[float]]:
    """Contrast and kurtosis of each octave of a copy of `side` px, the finest first."""
    plane = cv2.resize(light, (side, side), interpolation=cv2.INTER_AREA)
    contrasts, tails = [], []
    for _ in range(count):
        blurred = cv2.GaussianBlur(plane, (0, 0), 1.0)
        octave = (plane - blurred)[2:-2, 2:-2].astype(np.float64)  # without the mirrored border
        octave -= octave.mean()
        variance = max(float((octave**2).mean()), 1e-12)
        contrasts.append(variance**0.5)
        tails.append(float((octave**4).mean()) / variance**2)
        plane = cv2.resize(blurred, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return contrasts, tails
