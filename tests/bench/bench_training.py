"""Do batches come as fast as the step takes them? Images a second of each alone, and their ratio.

    python tests/bench/bench_training.py [PHOTOS ...] [--preset default] [--phases l1 adversarial] [--seconds 20]

A ratio above 1 means that the step never waits for batches; below 1 the cores that make them are what training waits
for, and a faster GPU changes nothing. Without PHOTOS, crops of scikit-image's pictures are packed: what a batch costs
depends on the recipe, hardly on the photo. Batches are made ahead by the run's own dataset, on all cores; the step
takes one and the same batch, so that it waits for none.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from model.config import Preset
    from model.pack import Pack

CROPS = 40


def made_photos(folder: Path) -> Path:
    """Crops of colour photographs, about as large as those that are packed."""
    from skimage import data

    random = np.random.default_rng(0)
    for number in range(CROPS):
        rgb = (data.astronaut, data.chelsea, data.coffee)[number % 3]()
        top, left = (int(random.integers(0, side - 255)) for side in rgb.shape[:2])
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), rgb[top : top + 256, left : left + 256, ::-1])
    return folder


def packed(photos: list[Path], recipe: "Preset", folder: Path) -> "Pack":
    """At most 500 of the photos, decoded as a run decodes them."""
    from model.pack import pack_photos
    from model.photos import draw, find_photos

    chosen = draw(find_photos(photos), 500, seed=0)
    return pack_photos(chosen, folder / "cache", recipe.cache_px, recipe.sampling.least_colourfulness)


def images_s(take: Callable[[], object], images: int, seconds: float) -> float:
    """Images a second of what takes so many at a time, after it has warmed up."""
    for _ in range(3):
        take()
    start, taken = time.perf_counter(), 0
    while not taken or time.perf_counter() - start < seconds:
        take()
        taken += images
    return taken / (time.perf_counter() - start)


def measure(recipe: "Preset", pack: "Pack", phases: list[str], seconds: float) -> None:
    """A line for each phase."""
    import tensorflow as tf

    from model.data import Batches
    from model.device import cores
    from model.gan import Adversaries
    from model.precision import chosen

    precision, everything = chosen("auto"), np.arange(len(pack))
    batches = Batches(pack, everything, recipe.sampling, recipe.batch, seed=0)
    players = Adversaries(recipe, precision, pack.histograms.mean(0))
    device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    print(f"preset {recipe.name}, batches of {recipe.batch}, {precision} on the {device}, {cores()} cores")
    print("phase          px | batches/s alone | step/s alone | ratio   (images)")
    for phase in (phase for phase in recipe.phases if phase.name in phases):
        ahead = iter(batches.dataset(0, phase.size_px))
        fed = images_s(lambda ahead=ahead: next(ahead), recipe.batch, seconds)
        del ahead  # it goes on in threads of its own, and would take the step's cores
        given = [tf.constant(array) for array in (*batches.at(0, phase.size_px), np.float32(phase.rate), np.float32(1))]
        step = players.begin(phase)
        taken = images_s(lambda step=step, given=given: step(*given).numpy(), recipe.batch, seconds)
        print(f"{phase.name:12s} {phase.size_px:4d} | {fed:15.1f} | {taken:12.1f} | {fed / taken:5.2f}", flush=True)


def main() -> None:
    """See the module's text."""
    from model.config import preset

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", metavar="PHOTOS", type=Path, nargs="*")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--phases", nargs="+", default=["l1", "adversarial"])
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    recipe = preset(given.preset)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(recipe, packed(given.photos or [made_photos(folder)], recipe, folder), given.phases, given.seconds)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
