"""The stated objective: generator GAN + λ·L1, discriminator real + fake (pix2pix, Isola et al. 2017, eq. 1-4)."""

from typing import Any

from keras import ops

Tensor = Any


def binary_cross_entropy(logits: Tensor, label: float) -> Tensor:
    """Mean of -label·log σ(x) - (1-label)·log(1-σ(x)) over all patches, stable for any logit. Scalar ≥ 0."""
    return ops.mean(ops.softplus(logits) - label * logits)


def l1(colour: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean |Δ(ab/110)| over pixels and both axes. Scalar in 0..2.

    Args:
        colour: ab/110, any shape.
        target: the same.
        weights: of the pixels, of mean 1, broadcast to the colours' shape; None for 1 each.
    """
    distance = ops.abs(colour - target)
    return ops.mean(distance if weights is None else distance * weights)


def generator_loss(
    fake: Tensor, colour: Tensor, target: Tensor, gan_weight: Tensor, l1_weight: float, weights: Tensor | None = None
) -> Tensor:
    """Total, GAN and L1 term stacked `[3]`; total = gan_weight·BCE(D(fake), 1) + l1_weight·L1, with pixels' weights."""
    gan, distance = binary_cross_entropy(fake, 1.0), l1(colour, target, weights)
    return ops.stack([gan_weight * gan + l1_weight * distance, gan, distance])


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Total, real and fake term stacked `[3]`; total = BCE(D(real), 1) + BCE(D(fake), 0)."""
    on_real, on_fake = binary_cross_entropy(real, 1.0), binary_cross_entropy(fake, 0.0)
    return ops.stack([on_real + on_fake, on_real, on_fake])
