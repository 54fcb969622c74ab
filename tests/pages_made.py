"""Pages of text and drawings, as L* 0..100, dark on light."""

import cv2
import numpy as np

Floats = np.ndarray


def printed(*, lines: int = 20, scale: float = 0.45, pitch: int = 18, font: int = cv2.FONT_HERSHEY_SIMPLEX) -> Floats:
    """A page of 300 × 400 px with margins and a ragged right side."""
    page = np.full((400, 300), 96, np.uint8)
    words = "Lorem ipsum dolor sit amet consectetur"
    for line in range(lines):
        end = len(words) - 17 + 5 * line % 14
        cv2.putText(page, words[:end], (12, 24 + pitch * line), font, scale, 10, 1, cv2.LINE_AA)
    return page.astype(np.float32)


def drawn(strokes: int = 60) -> Floats:
    """Thin wavy lines all over a sheet of 500 × 400 px."""
    page, random = np.full((400, 500), 93, np.uint8), np.random.default_rng(3)
    for _ in range(strokes):
        steps = cv2.GaussianBlur(random.normal(0, 9, (60, 2)), (1, 21), 5)
        points = np.cumsum(steps, axis=0) + random.uniform((60, 50), (440, 350))
        cv2.polylines(page, [np.round(points).astype(np.int32)], False, int(random.uniform(10, 30)), 2, cv2.LINE_AA)
    return page.astype(np.float32)


def lit(page: Floats) -> Floats:
    """Under a lamp at one corner: the far one has half the light."""
    y, x = np.mgrid[0 : 1 : page.shape[0] * 1j, 0 : 1 : page.shape[1] * 1j]
    return (page * (1 - 0.3 * x - 0.2 * y**2)).astype(np.float32)


def turned(page: Floats, degrees: float) -> Floats:
    """Laid askew on the glass."""
    height, width = page.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return cv2.warpAffine(page, turn, (width, height), flags=cv2.INTER_LINEAR, borderValue=float(page.max()))


def ruled(page: Floats) -> Floats:
    """On lined paper."""
    lined = page.copy()
    lined[29::18] = np.minimum(lined[29::18], 70)
    return lined


def typed() -> Floats:
    """By typewriter: wide lines, soft grainy letters, in gray."""
    page = printed(lines=13, pitch=28, font=cv2.FONT_HERSHEY_PLAIN, scale=0.9)
    grain = np.random.default_rng(4).normal(0, 3, page.shape)
    return (cv2.GaussianBlur(page, (0, 0), 0.6) * 0.8 + 15 + grain).astype(np.float32)
