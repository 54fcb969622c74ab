"""Draw `docs/known-failures.png`: pictures on which the weights that ship go wrong, as gray | ours | truth.

    python tests/bench/sheet_known_failures.py

The pictures are scikit-image's (public domain and CC0) and noise drawn here, so that the sheet may be shown and anyone
can draw it again. Noise has no true colours; its third picture is gray.
"""

from pathlib import Path

import cv2
import numpy as np
from skimage import data

from model.colorizer import Colorizer
from model.registry import shipped
from model.sheets import lab_to_rgb, write_sheet

SHEET = Path(__file__).parents[2] / "docs" / "known-failures.png"
SIDE_PX = 160


def smoothed_noise() -> np.ndarray:
    """Noise without anything in it, smoothed by 10 px of 512, RGB uint8."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(512, 512)), (0, 0), 10)
    shade = np.clip(128 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)
    return np.dstack([shade] * 3)


def pictures() -> dict[str, np.ndarray]:
    """What goes wrong -> RGB uint8 picture."""
    return {
        "orange suit": data.astronaut(),
        "retina": data.retina(),
        "stained tissue": data.immunohistochemistry(),
        "galaxies": data.hubble_deep_field(),
        "smoothed noise": smoothed_noise(),
    }


def main() -> None:
    """Colour all of them and write the sheet."""
    colorizer = Colorizer(shipped())
    rows = []
    for rgb in pictures().values():
        small = cv2.resize(rgb, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2Lab)
        light = np.ascontiguousarray(lab[..., 0])
        colours = (np.zeros((2, 2, 2), np.float32), colorizer.chroma(light), lab[..., 1:])
        rows.append([lab_to_rgb(light, colour) for colour in colours])
    write_sheet(SHEET, rows, list(pictures()))
    print(f"{SHEET} (weights {shipped().name})")


if __name__ == "__main__":
    main()
