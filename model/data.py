"""Training batches from packed photos: a pure function of seed and step, so that a resumed run sees what it would have.

Letters in shapes: B batch, S side of the square picture. Light is L*/50 - 1, colour is ab/110 at S/2.
"""

from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from model.config import AB_RANGE, Sampling
from model.device import cores
from model.film import age, film_lightness
from model.pack import Pack
from model.rarity import rarity_table


def photo_weights(pack: Pack, indices: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Chance of each photo to be drawn; float64 that adds up to 1.

    Sources are brought nearer to each other by `source_power`; photos with rare colours are preferred by the class
    rebalancing of Zhang et al. 2016 (λ = ½, here over coarse bins and whole photos), to the power `rarity_power`.
    """
    counts = np.bincount(pack.sources[indices], minlength=len(pack.source_names)).astype(np.float64)
    source = counts[pack.sources[indices]] ** (sampling.source_power - 1)
    histograms = pack.histograms[indices].astype(np.float64)
    rarity = histograms @ rarity_table(histograms.mean(0))
    weight = source * np.clip(rarity / rarity.mean(), 0.25, 4.0) ** sampling.rarity_power
    return weight / weight.sum()


class Batches:
    """Draws the batch of any step."""

    def __init__(self, pack: Pack, indices: np.ndarray, sampling: Sampling, batch: int, seed: int) -> None:
        """Prepare to draw from the photos of `indices`."""
        self._pack, self._indices, self._sampling = pack, indices, sampling
        self._batch, self._seed = batch, seed
        self._edges = np.cumsum(photo_weights(pack, indices, sampling))

    def at(self, step: int, size_px: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch of a step: light `[B, S, S, 1]` and colour `[B, S/2, S/2, 2]`, float32."""
        random = np.random.default_rng((self._seed, step))
        drawn = np.searchsorted(self._edges, random.random(self._batch) * self._edges[-1])
        pairs = [self._example(int(i), size_px, random) for i in np.minimum(drawn, len(self._indices) - 1)]
        return np.stack([light for light, _ in pairs]), np.stack([colour for _, colour in pairs])

    def dataset(self, first_step: int, size_px: int) -> tf.data.Dataset:
        """Endless batches from `first_step` on, in their order, made ahead of the training step on all cores."""

        def draw(step: Any) -> tuple[np.ndarray, np.ndarray]:
            """A step's batch as NumPy makes it."""
            return self.at(int(step), size_px)

        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """The same as tensors, with the shapes that TensorFlow cannot see in NumPy."""
            light, colour = tf.numpy_function(draw, [step], [tf.float32, tf.float32])
            light.set_shape((self._batch, size_px, size_px, 1))
            colour.set_shape((self._batch, size_px // 2, size_px // 2, 2))
            return light, colour

        steps = tf.data.Dataset.counter(first_step)
        return steps.map(batch, num_parallel_calls=cores(), deterministic=True).prefetch(4)

    def _example(self, index: int, size_px: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rgb = _cut(self._pack.photo(int(self._indices[index])), self._sampling, random)
        if random.random() < 0.5:
            rgb = rgb[:, ::-1]
        square = resized(rgb, size_px).astype(np.float32) / 255
        light, colour = light_and_colour(square)
        if random.random() < self._sampling.film_share:
            light = age(film_lightness(square, random), random)[..., None] / 50 - 1
        return light, colour


def whole_photos(pack: Pack, indices: np.ndarray, count: int, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` photos, spread evenly over the indices, as they are: no crop, mirror or film; as `Batches.at`."""
    some = indices[np.unique(np.linspace(0, len(indices) - 1, count).round().astype(int))]
    squares = [resized(pack.photo(int(i)), size_px).astype(np.float32) / 255 for i in some]
    pairs = [light_and_colour(square) for square in squares]
    return np.stack([light for light, _ in pairs]), np.stack([colour for _, colour in pairs])


def _cut(rgb: np.ndarray, sampling: Sampling, random: np.random.Generator) -> np.ndarray:
    """The whole photo, or a crop of random size, place and shape (side ratio up to 1.22)."""
    if random.random() < sampling.whole_share:
        return rgb
    height, width = rgb.shape[:2]
    side = min(height, width) * random.uniform(sampling.least_crop, 1.0)
    shape = np.exp(random.uniform(-0.2, 0.2))
    tall, wide = min(height, int(side * shape)), min(width, int(side / shape))
    top, left = random.integers(0, height - tall + 1), random.integers(0, width - wide + 1)
    return rgb[top : top + tall, left : left + wide]


def resized(rgb: np.ndarray, size_px: int) -> np.ndarray:
    """The picture stretched to a square: by area when it shrinks, bilinearly when it grows."""
    method = cv2.INTER_AREA if min(rgb.shape[:2]) > size_px else cv2.INTER_LINEAR
    return cv2.resize(rgb, (size_px, size_px), interpolation=method)


def light_and_colour(square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float32 sRGB `[S, S, 3]` in 0..1 -> light `[S, S, 1]` and colour at half the size `[S/2, S/2, 2]`."""
    lab = cv2.cvtColor(square, cv2.COLOR_RGB2Lab)
    half = square.shape[0] // 2
    colour = cv2.resize(lab[..., 1:], (half, half), interpolation=cv2.INTER_AREA) / AB_RANGE
    return lab[..., :1] / 50 - 1, colour
