"""Sheets of pictures for the eye: rows of gray | ours | truth as one PNG."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from model.config import AB_RANGE
from model.lab import compress_chroma


def lab_to_rgb(lightness: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """L* `[H, W]` in 0..100 and ab `[h, w, 2]` of any size -> sRGB uint8 `[H, W, 3]`.

    Colours go up bicubically and are brought into sRGB's gamut as the derivatives' are, so that L* is kept.
    """
    height, width = lightness.shape
    large = cv2.resize(np.ascontiguousarray(colour, np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    light = np.ascontiguousarray(lightness, np.float32)
    a, b = compress_chroma(light, np.ascontiguousarray(large[..., 0]), np.ascontiguousarray(large[..., 1]))
    lab = np.dstack([light, a, b])
    return (np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), 0, 1) * 255 + 0.5).astype(np.uint8)


def write_sheet(path: Path, rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str] = ()) -> None:
    """Write rows of equally tall RGB uint8 pictures as one PNG; a label stands at the left of its row."""
    drawn = []
    for number, pictures in enumerate(rows):
        row = np.hstack([np.pad(p, ((2, 2), (2, 2), (0, 0)), constant_values=255) for p in pictures])
        if number < len(labels):
            cv2.putText(row, labels[number], (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1, cv2.LINE_AA)
        drawn.append(row)
    width = max(row.shape[1] for row in drawn)
    sheet = np.vstack([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in drawn])
    done, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"The sheet {path} cannot be encoded; write fewer pictures on it.")
    path.write_bytes(data.tobytes())


def training_sheet(path: Path, light: np.ndarray, ours: np.ndarray, truth: np.ndarray) -> None:
    """A sample grid of a training run.

    Args:
        path: the PNG.
        light: L*/50 - 1, `[B, S, S, 1]`.
        ours: the generator's ab/110, `[B, S/2, S/2, 2]`.
        truth: the photos' ab/110, `[B, S/2, S/2, 2]`.
    """
    rows = []
    for shade, guess, real in zip(light[..., 0], ours, truth, strict=True):
        lightness = (shade + 1) * 50
        colours = (np.zeros_like(guess), guess * AB_RANGE, real * AB_RANGE)
        rows.append([lab_to_rgb(lightness, colour) for colour in colours])
    pairs = [[picture for row in rows[i : i + 2] for picture in row] for i in range(0, len(rows), 2)]
    write_sheet(path, pairs)
