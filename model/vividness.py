"""The terms that the preset `vivid` adds to GAN + 100·L1: an L1 that minds rare colours, and a perceptual distance.

Letters in shapes: B batch, S side of the square light. Light is L*/50 - 1 `[B, S, S, 1]`, colour is ab/110
`[B, S/2, S/2, 2]`, as everywhere in training.
"""

import dataclasses
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from model.config import AB_RANGE
from model.encoder import PACKAGES, EncoderError, load_encoder, published_weights
from model.lab import RGB_FROM_XYZ, WHITE_D65
from model.networks import build_encoder
from model.precision import mix
from model.rarity import HISTOGRAM_BINS, rarity_table

Tensor = Any

#: what judges for a generator whose own encoder has no ImageNet weights: the ones that are installed with the product
_FALLBACK: Final = "lite2_unet"
#: added to squared norms of features, so that a feature of no length has a gradient
_TINY: Final = 1e-8
_BIN: Final = 256 / HISTOGRAM_BINS


class PixelRarity:
    """Weights for L1 by how rare the true colour is in the training photos, raised to a power (0: all are 1)."""

    def __init__(self, common: npt.NDArray[np.floating], power: float) -> None:
        """Look the weights up once.

        Args:
            common: share of all pixels in each of `HISTOGRAM_BINS`² bins of (a, b), as `pack.colour_histogram`.
            power: 1 for Zhang et al.'s weights, less for milder ones.
        """
        self._table = (rarity_table(common) ** power).astype(np.float32)

    def __call__(self, colour: Tensor) -> Tensor:
        """True colour `[B, h, w, 2]` -> weights `[B, h, w, 1]` whose mean over the batch is 1.

        By that mean 100·L1 keeps its scale against the other terms, whatever the batch shows.
        """
        # bins are of 8-bit Lab, which rounds: hence the half
        bins = ops.cast(ops.floor((colour * AB_RANGE + 128.5) / _BIN), "int32")
        bins = ops.clip(bins, 0, HISTOGRAM_BINS - 1)
        weights = ops.take(ops.convert_to_tensor(self._table), bins[..., :1] * HISTOGRAM_BINS + bins[..., 1:])
        return weights / ops.mean(weights)


def srgb_from_net(light: Tensor, colour: Tensor) -> Tensor:
    """Light and colour of equal size, `[B, h, w, 1]` and `[B, h, w, 2]` -> sRGB code values in 0..1 `[B, h, w, 3]`.

    CIE 15:2018 and IEC 61966-2-1, as in `model.lab`, by differentiable operations. What lies outside sRGB is clipped;
    its gradient is that of the value before (straight through), so that such a colour may still come back.
    """
    fy = ((light + 1) * 50 + 16) / 116
    fx = fy + colour[..., :1] * (AB_RANGE / 500)
    f = ops.concatenate([fx, fy, fy - colour[..., 1:] * (AB_RANGE / 200)], axis=-1)
    knee = 6 / 29
    xyz = ops.where(f > knee, ops.power(ops.maximum(f, knee), 3), 3 * knee**2 * (f - 4 / 29))
    linear = ops.matmul(xyz, (RGB_FROM_XYZ * WHITE_D65).T.astype(np.float32))
    # the maximum keeps the power's gradient finite where the other branch is taken
    curved = 1.055 * ops.power(ops.maximum(linear, 0.0031308), 1 / 2.4) - 0.055
    encoded = ops.where(linear > 0.0031308, curved, 12.92 * linear)
    return encoded + ops.stop_gradient(ops.clip(encoded, 0.0, 1.0) - encoded)


def feature_distance(ours: list[Tensor], truth: list[Tensor]) -> Tensor:
    """Distance of features, lists of `[B, h, w, c]` per stage: a scalar in 0..4.

    Each is brought to unit length over its channels; the squared difference is summed over channels, averaged over
    space, batch and stages (Zhang et al., "The Unreasonable Effectiveness of Deep Features", CVPR 2018, eq. 1 with all
    channels' weights 1).
    """
    distances = []
    for one, other in zip(ours, truth, strict=True):
        difference = _unit(ops.cast(one, "float32")) - _unit(ops.cast(other, "float32"))
        distances.append(ops.mean(ops.sum(ops.square(difference), axis=-1)))
    return ops.mean(ops.stack(distances))


def _unit(features: Tensor) -> Tensor:
    return features * ops.rsqrt(ops.sum(ops.square(features), axis=-1, keepdims=True) + _TINY)


class PerceptualDistance:
    """How different two colourings of one light look to an encoder that ImageNet taught and that learns no more."""

    def __init__(self, kind: str, policy: str = "float32") -> None:
        """Build the encoder and load its ImageNet weights.

        Args:
            kind: of the generator; its own kind of encoder judges, or Lite2 where there are no weights for that kind.
            policy: what it computes in, as for the generator.

        Raises:
            EncoderError: the ImageNet weights are not installed.
        """
        kind = kind if kind in PACKAGES else _FALLBACK
        try:
            weights = published_weights(kind)
        except EncoderError as error:
            raise EncoderError(f"The perceptual term judges by ImageNet weights, which are missing: {error}") from error
        self.net: keras.Model = build_encoder(kind)
        load_encoder(self.net, weights)
        mix(self.net, policy)
        self.net.trainable = False

    def __call__(self, light: Tensor, ours: Tensor, truth: Tensor) -> Tensor:
        """Light `[B, S, S, 1]` and two colours of half its size -> scalar in 0..4; gradients go to `ours` alone."""
        half = ops.average_pool(light, 2, 2)
        wanted = [ops.stop_gradient(feature) for feature in self._features(half, truth)]
        return feature_distance(self._features(half, ours), wanted)

    def _features(self, half: Tensor, colour: Tensor) -> list[Tensor]:
        return self.net(srgb_from_net(half, ops.cast(colour, "float32")) * 2 - 1, training=False)


@dataclasses.dataclass(frozen=True)
class VividTerms:
    """What one phase has beside GAN + λ·L1; without either part, nothing."""

    rarity: PixelRarity | None = None
    perceptual: PerceptualDistance | None = None
    perceptual_weight: float = 0.0

    def pixel_weights(self, colour: Tensor) -> Tensor | None:
        """The weights of L1's pixels for the true colour, as `PixelRarity` gives them; None for 1 each."""
        return None if self.rarity is None else self.rarity(colour)

    def perceived(self, light: Tensor, ours: Tensor, truth: Tensor) -> Tensor | float:
        """The perceptual distance, not weighted; 0 where the phase has none."""
        return 0.0 if self.perceptual is None else self.perceptual(light, ours, truth)
