"""How strongly a generator's colours are to be drawn, measured on photos it never learned from.

A net trained on a mean error is duller than the truth, by about the same factor everywhere. One number puts that right:
the saturation that brings the hold-out's mean chroma to the aim. It is recorded with the weights and never tuned on
the evaluation set.
"""

import dataclasses

import cv2
import keras
import numpy as np

from model.config import AB_RANGE, Preset
from model.data import resized
from model.metrics import agreement, colour_sums
from model.pack import Pack

#: a net so dull that it would need more than this is not rescued by saturation
MOST_SATURATION = 1.8
_BATCH = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the hold-out says of a generator; ratios are ours over the originals'."""

    photos: int
    agreement: float
    #: mean |Δab| before saturation
    ab_l1: float
    raw_chroma_ratio: float
    saturation: float


def predict(generator: keras.Model, light: np.ndarray, flip_average: bool = True) -> np.ndarray:
    """Colours of squares as they are served, before saturation.

    Args:
        generator: the net.
        light: L*/50 - 1, float32 `[B, S, S, 1]`.
        flip_average: take the mean of the prediction and of the mirrored picture's prediction mirrored back.

    Returns:
        ab, float32 `[B, S/2, S/2, 2]`.
    """
    colour = np.asarray(generator(light, training=False))
    if flip_average:
        mirrored = np.asarray(generator(light[:, :, ::-1].copy(), training=False))
        colour = (colour + mirrored[:, :, ::-1]) / 2
    return (colour * AB_RANGE).astype(np.float32)


def calibrate(generator: keras.Model, pack: Pack, indices: np.ndarray, preset: Preset) -> Calibration:
    """Measure a generator on the photos of `indices` (squeezed whole into squares) and find its saturation.

    An empty hold-out gives saturation 1.
    """
    size = preset.serve_size_px
    sums, errors, chroma, chroma_true = np.zeros(3), [], [], []
    for first in range(0, len(indices), _BATCH):
        rgb = [resized(pack.photo(int(i)), size).astype(np.float32) / 255 for i in indices[first : first + _BATCH]]
        labs = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2Lab) for picture in rgb])
        ours = predict(generator, labs[..., :1] / 50 - 1)
        for lab, colour in zip(labs, ours, strict=True):
            truth = cv2.resize(lab, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
            result = np.dstack([truth[..., :1], colour])
            sums += colour_sums(truth, result)
            errors.append(np.abs(truth[..., 1:] - colour).mean())
            chroma.append(np.hypot(colour[..., 0], colour[..., 1]).mean())
            chroma_true.append(np.hypot(truth[..., 1], truth[..., 2]).mean())
    if not errors or sum(chroma) == 0:
        return Calibration(photos=len(errors), agreement=0.0, ab_l1=0.0, raw_chroma_ratio=0.0, saturation=1.0)
    ratio = float(sum(chroma) / sum(chroma_true))
    return Calibration(
        photos=len(errors),
        agreement=float(agreement(*sums)),
        ab_l1=float(np.mean(errors)),
        raw_chroma_ratio=ratio,
        saturation=float(np.clip(preset.chroma_ratio_aim / ratio, 1.0, MOST_SATURATION)),
    )
