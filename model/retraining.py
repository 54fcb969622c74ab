"""The recipe of a retraining run: warm start from the champion, half new photos, half what it knew before.

New material alone makes a net forget the old (joint training with replay is the standard cure: Wu et al., "Memory
Replay GANs", 2018). Where no base photos are at hand, the champion's own outputs on a small gray set take their place
(self-distillation, after Li & Hoiem, "Learning without Forgetting", 2016).
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from model.calibrate import MOST_SATURATION, predict
from model.colorizer import Colorizer
from model.config import Phase, Preset, Sampling, architecture_from
from model.evaluate import gray_of
from model.networks import build_generator
from model.photos import Photo, PhotosError, decode, find_photos, shrink
from model.registry import Version, weights_path
from model.run import Progress
from model.sheets import lab_to_rgb
from model.train import TrainResult, train
from model.weights_file import read_weights

#: gray pictures that come with the product, for replay where no base photos are at hand
REPLAY = Path(__file__).parent / "replay"
LEAST_BATCH = 2
LEAST_PX = 64
#: replay photos that the saturation is measured on
CALIBRATED = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is learned at a time, and for how long; batch and size shrink when memory does not suffice."""

    minutes: float | None
    steps: int | None
    batch: int
    size_px: int
    seed: int
    checkpoint_every_s: float

    def smaller(self) -> "Effort | None":
        """Half the batch; then, at the smallest batch, a smaller picture; None when both are at their least."""
        if self.batch > LEAST_BATCH:
            return dataclasses.replace(self, batch=max(LEAST_BATCH, self.batch // 2))
        size_px = self.size_px * 3 // 4 // 32 * 32
        return dataclasses.replace(self, size_px=size_px) if size_px >= LEAST_PX else None


def recipe(version: Version, effort: Effort) -> Preset:
    """The champion's own architecture under GAN + 100·L1, Adam 2e-4, β₁ 0.5, the encoder as it is.

    With the encoder at a tenth of the rate, its running statistics drifted towards the new photos: the same short run
    lost 3.5 % of ab-L1 on other photos, and 1.0 % with the encoder frozen.

    A short L1 stage brings the new colours in; then the discriminator sees them; then both play. Sources (new photos
    and replay) are drawn equally often, whatever their sizes.
    """
    size_px = effort.size_px
    return Preset(
        name="retrain",
        architecture=architecture_from(version.config["architecture"]),
        encoder_weights="none",
        batch=effort.batch,
        sampling=Sampling(source_power=0.0, least_colourfulness=0.0),
        serve_size_px=version.serve_size_px,
        holdout_photos=60,
        phases=(
            Phase(name="l1", objective="l1", share=0.5, size_px=size_px, rate=2e-4, decay_share=0.6, encoder_rate=0.0),
            Phase(name="critic", objective="critic", share=0.1, size_px=size_px),
            Phase(name="adversarial", objective="adversarial", share=0.4, size_px=size_px, ramp=0.3, encoder_rate=0.0),
        ),
    )


def retrain(
    photos: Path,
    output: Path,
    champion: Colorizer,
    effort: Effort,
    *,
    progress: Callable[[Progress], None],
    reduced: Callable[[Effort], None],
) -> TrainResult:
    """Train from the champion's generator, discriminator and (its generator being the mean) EMA; goes on after a kill.

    Args:
        photos: folder with one subfolder per source.
        output: of the run; its curves go beside it, into `tensorboard`.
        champion: where to start; what the result has to be as colourful as, on replay.
        effort: batch, size and caps.
        progress: called while training goes on.
        reduced: called with the new effort when memory did not suffice.

    Raises:
        TrainingError: as `model.train.train`; LossNotFinite when the run is lost.
        MemoryError: not even the smallest effort fits.
    """
    while True:
        try:
            result = _train_from(champion.version, photos, output, effort, progress)
            _match_saturation(champion, output, photos / "replay")
            return result
        except tf.errors.ResourceExhaustedError as error:
            less = effort.smaller()
            if less is None:
                raise MemoryError(
                    f"Not even batches of {effort.batch} at {effort.size_px} px fit into memory."
                ) from error
            effort = less
            reduced(effort)


def _train_from(
    version: Version, photos: Path, output: Path, effort: Effort, progress: Callable[[Progress], None]
) -> TrainResult:
    discriminator = version.directory / "discriminator.npz"
    return train(
        [photos],
        output,
        preset=recipe(version, effort),
        minutes=effort.minutes,
        steps=effort.steps,
        seed=effort.seed,
        start=weights_path(version),
        start_discriminator=discriminator if discriminator.exists() else None,
        checkpoint_every_s=effort.checkpoint_every_s,
        curves=output.parent / "tensorboard",
        progress=progress,
    )


def _match_saturation(champion: Colorizer, output: Path, replay: Path) -> None:
    """Let the new version be as colourful as the champion on what both know.

    `calibrate` would be misled: colourful new photos make it find the rest colourful enough. Written into the run's
    `config.json`, from which the version is made.
    """
    path = output / "config.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    generator = build_generator(architecture_from(record["architecture"]))
    read_weights(generator, output / "generator.npz")
    size = record["serve_size_px"]
    was, now = [], []
    for photo in find_photos([replay])[:CALIBRATED]:
        light = gray_of(decode(photo))[1]
        square = cv2.resize(light, (size, size), interpolation=cv2.INTER_AREA)[None, ..., None] / 50 - 1
        was.append(np.linalg.norm(champion.chroma(light), axis=-1).mean())
        now.append(np.linalg.norm(predict(generator, square.astype(np.float32)), axis=-1).mean())
    record["saturation"] = round(float(np.clip(np.sum(was) / max(np.sum(now), 1e-6), 0.5, MOST_SATURATION)), 3)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def anchored(rgb: np.ndarray, champion: Colorizer) -> np.ndarray:
    """A base photo whose colours are half its own and half the champion's: the rest must not drift for the new's sake.

    Args:
        rgb: uint8 `[H, W, 3]`.
        champion: the version that serves.
    """
    light = gray_of(rgb)[1]
    ours = lab_to_rgb(light, champion.chroma(light))
    return ((rgb.astype(np.uint16) + ours + 1) // 2).astype(np.uint8)


def distil(champion: Colorizer, folder: Path, count: int, seed: int, short_px: int) -> list[str]:
    """Write photos whose colours are the champion's own: what it does to the shipped gray set must not change.

    Args:
        champion: the version that serves.
        folder: where to write PNGs.
        count: how many; the gray pictures are cropped at random until there are so many.
        seed: of the crops.
        short_px: short side of what is written.

    Returns:
        The files' names.
    """
    random = np.random.default_rng(seed)
    pictures = [gray_of(decode(photo))[1] for photo in find_photos([REPLAY])]
    coloured = [lab_to_rgb(light, champion.chroma(light)) for light in pictures]
    names = []
    for number in range(count):
        rgb = coloured[number % len(coloured)]
        if number >= len(coloured):
            rgb = _crop(rgb, random)
        names.append(f"distilled_{number:05d}.png")
        write_photo(folder / names[-1], shrink(rgb, short_px))
    return names


def _crop(rgb: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = rgb.shape[:2]
    side = int(min(height, width) * random.uniform(0.6, 1.0))
    top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    return rgb[top : top + side, left : left + side]


def write_photo(path: Path, rgb: np.ndarray) -> None:
    """Write an RGB uint8 picture as PNG, folders included.

    Raises:
        OSError: no room, or no right.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise PhotosError(f"{path.name} cannot be encoded.")
    path.write_bytes(data.tobytes())


def base_photos(folder: Path, seed: int) -> list[Photo]:
    """Photos of the base set in an order drawn by the seed: any first part of it holds a share of every source.

    Sources are subfolders. A share grows with the square root of the source's size, as in training: of a uniform draw,
    one large source would be most, and small ones would be forgotten.

    Raises:
        PhotosError: the folder holds none.
    """
    sources: dict[str, list[Photo]] = {}
    for photo in find_photos([folder]):
        sources.setdefault(photo.source, []).append(photo)
    random = np.random.default_rng(seed)
    turns: list[tuple[float, str, Photo]] = []
    for source in sorted(sources):
        drawn, first = random.permutation(len(sources[source])), random.random()
        step = 1 / np.sqrt(len(drawn))
        turns += [((turn + first) * step, source, sources[source][i]) for turn, i in enumerate(drawn)]
    return [photo for _, _, photo in sorted(turns, key=lambda turn: turn[:2])]
