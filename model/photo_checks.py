"""Is a colour photograph fit to be learned from? Facts about its pixels, and the first reason against it.

Thresholds were set so that of 800 photographs of the training set they drop 11, all as dull, and every toned scan,
poster and diagram that they were tried on; tests hold them.
"""

import dataclasses

import cv2
import numpy as np

from model.metrics import colourfulness
from model.photos import shrink

_SMALL_PX = 160
#: tone is judged on so small a copy that grain and the coloured noise of scanners and JPEG have gone
_TONE_PX = 40
#: mean chroma under which a picture is gray
GRAY_CHROMA = 3.0
#: rms distance of (a, b) from the best function of L alone, under which the picture is toned
TONE_RESIDUAL = 2.5
#: Hasler-Süsstrunk colourfulness under which a photo teaches dullness (BigColor's filter)
LEAST_COLOURFULNESS = 15.0
#: share of neighbouring pixels that are exactly equal, above which the picture was drawn, not taken
MOST_FLAT = 0.6
#: share of the pixels in the eight commonest of 4096 colours, above which the same
MOST_POSTER = 0.85
#: correlation of neighbouring pixels under which a picture is noise
LEAST_CORRELATION = 0.4


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhotoFacts:
    """What the pixels of a photo say; `fault` is the first reason against it, "" when there is none."""

    width_px: int
    height_px: int
    colourfulness: float
    mean_chroma: float
    tone_residual: float
    flat_share: float
    poster_share: float
    correlation: float
    fault: str


def photo_facts(rgb: np.ndarray, least_px: int) -> PhotoFacts:
    """Examine an RGB uint8 photo `[H, W, 3]`; its short side must have `least_px` pixels."""
    height, width = rgb.shape[:2]
    small = shrink(rgb, _SMALL_PX)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    facts = PhotoFacts(
        width_px=width,
        height_px=height,
        colourfulness=colourfulness(small),
        mean_chroma=float(np.hypot(lab[..., 1], lab[..., 2]).mean()),
        tone_residual=tone_residual(cv2.resize(lab, (_TONE_PX, _TONE_PX), interpolation=cv2.INTER_AREA)),
        flat_share=_flat_share(rgb),
        poster_share=_poster_share(small),
        correlation=_correlation(lab[..., 0]),
        fault="",
    )
    return dataclasses.replace(facts, fault=_fault(facts, least_px))


def _fault(facts: PhotoFacts, least_px: int) -> str:
    if min(facts.width_px, facts.height_px) < least_px:
        return f"too small: {facts.width_px}x{facts.height_px} px, the short side must have {least_px}"
    if facts.mean_chroma < GRAY_CHROMA:
        return f"gray: its mean chroma is {facts.mean_chroma:.1f}"
    if facts.tone_residual < TONE_RESIDUAL:
        return f"toned: one colour per lightness (spread {facts.tone_residual:.1f})"
    if max(facts.flat_share / MOST_FLAT, facts.poster_share / MOST_POSTER) > 1 or facts.correlation < LEAST_CORRELATION:
        return "synthetic: flat areas, few colours or noise, as in drawings and screenshots"
    if facts.colourfulness < LEAST_COLOURFULNESS:
        return f"dull: its colourfulness is {facts.colourfulness:.1f}, less than {LEAST_COLOURFULNESS:.0f}"
    return ""


def tone_residual(lab: np.ndarray) -> float:
    """Rms distance of (a, b) from the cubic in L that fits them best: near 0 for sepia, cyanotype, duotone.

    Args:
        lab: float `[H, W, 3]`, L in 0..100.
    """
    light = lab[..., 0].ravel().astype(np.float64) / 100
    design = np.stack([light**0, light, light**2, light**3], axis=1)
    colours = lab[..., 1:].reshape(-1, 2).astype(np.float64)
    fitted = design @ np.linalg.lstsq(design, colours, rcond=None)[0]
    return float(np.sqrt(((colours - fitted) ** 2).sum(1).mean()))


def _flat_share(rgb: np.ndarray) -> float:
    """Share of horizontal neighbours that are equal, black and white left out: burnt-out skies are no drawings."""
    here, there = rgb[:, :-1], rgb[:, 1:]
    level = here.astype(np.int16).sum(2)
    inside = (level > 24) & (level < 741)
    equal = (here == there).all(2)
    return float((equal & inside).sum() / equal.size)


def _poster_share(rgb: np.ndarray) -> float:
    """Share of the pixels that the eight commonest colours hold, of 16 steps per channel."""
    steps = rgb.astype(np.int32) >> 4
    counts = np.bincount(((steps[..., 0] << 8) | (steps[..., 1] << 4) | steps[..., 2]).ravel(), minlength=4096)
    return float(np.sort(counts)[-8:].sum() / counts.sum())


def _correlation(light: np.ndarray) -> float:
    """Pearson correlation of horizontal neighbours; 1 for a constant picture."""
    left, right = light[:, :-1].ravel(), light[:, 1:].ravel()
    if left.std() < 1e-6 or right.std() < 1e-6:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])
