"""The training step: generator against discriminator, TensorFlow's gradients over layers and losses of Keras.

Letters in shapes: B batch, S side of the square picture. Light is L*/50 - 1 `[B, S, S, 1]`, colour ab/110
`[B, S/2, S/2, 2]`.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from model.config import Phase, Preset
from model.losses import discriminator_loss, generator_loss, l1
from model.networks import build_discriminator, build_generator, encoder_layers
from model.precision import LossScale, mix
from model.vividness import PerceptualDistance, PixelRarity, VividTerms

#: what a step returns, in this order; `g_l1` is without weights, `g_perceptual` 0 where the phase has no such term
LOSSES = ("g_gan", "g_l1", "d_real", "d_fake", "chroma_ratio", "g_perceptual")

Step = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


class Adversaries:
    """Generator, discriminator, their Adams and the generator's running mean (EMA)."""

    def __init__(self, preset: Preset, policy: str = "float32", common: np.ndarray | None = None) -> None:
        """Build both nets with the weights that Keras' seed gives them.

        Args:
            preset: the recipe.
            policy: what the generator computes in, as `model.precision.chosen` gives it.
            common: how common each colour is in the training photos, as `pack.colour_histogram`; needed where a
                phase minds rare colours.

        Raises:
            EncoderError: a phase has a perceptual term, and the ImageNet weights for it are not installed.
        """
        self.preset = preset
        self.generator = build_generator(preset.architecture)
        mix(self.generator, policy)
        self.loss_scale = LossScale(policy)
        self.discriminator = build_discriminator()
        self.average = [tf.Variable(v.value, trainable=False) for v in self.generator.weights]
        self._parts = self._split()
        self.adam_discriminator = self._adam(preset.critic_rate)
        self.adam_discriminator.build(self.discriminator.trainable_variables)
        self.adams = [self._adam(0.0), self._adam(0.0)]
        for adam, variables in zip(self.adams, self._parts, strict=True):
            adam.build(variables)
        self._common = common
        # last, so that the other nets' first weights are those of a run without it
        minds = any(phase.perceptual_weight > 0 for phase in preset.phases)
        self._perceptual = PerceptualDistance(preset.architecture.kind, policy) if minds else None

    def _terms(self, phase: Phase) -> VividTerms:
        """What the phase has beside GAN + λ·L1."""
        rarity = None
        if phase.pixel_rarity_power > 0:
            if self._common is None:
                raise ValueError("Which colours are rare is not known; give `common`.")
            rarity = PixelRarity(self._common, phase.pixel_rarity_power)
        return VividTerms(rarity, self._perceptual if phase.perceptual_weight > 0 else None, phase.perceptual_weight)

    def _adam(self, rate: float) -> keras.optimizers.Adam:
        return keras.optimizers.Adam(rate, beta_1=self.preset.beta_1)

    def _split(self) -> tuple[list[Any], list[Any]]:
        """The generator's trainable variables: decoder, encoder."""
        inside = {id(v) for layer in encoder_layers(self.generator) for v in layer.weights}
        variables = self.generator.trainable_variables
        return [v for v in variables if id(v) not in inside], [v for v in variables if id(v) in inside]

    def reset_average(self) -> None:
        """Start the running mean again from the generator as it is."""
        for mean, variable in zip(self.average, self.generator.weights, strict=True):
            mean.assign(variable.value)

    def take_average(self) -> None:
        """Go on from the running mean."""
        for mean, variable in zip(self.average, self.generator.weights, strict=True):
            variable.assign(mean)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the generator has the running mean's weights."""
        now = [np.array(variable) for variable in self.generator.weights]
        self.take_average()
        try:
            yield
        finally:
            for variable, value in zip(self.generator.weights, now, strict=True):
                variable.assign(value)

    def settle(self, phase: Phase, lights: Iterable[np.ndarray]) -> None:
        """Take the normalisation's running statistics anew for the weights as they are (Izmailov et al. 2018, §3.2).

        A running mean of weights has none of its own, and after a few hundred steps those of training still lag behind.

        Args:
            phase: the last one; an encoder that stood still in it keeps its statistics.
            lights: batches of light `[B, S, S, 1]`, each with equal weight.
        """
        for layer in encoder_layers(self.generator):
            layer.trainable = phase.encoder_rate > 0
        kinds = keras.layers.BatchNormalization
        settled = [layer for layer in self.generator.layers if isinstance(layer, kinds) and layer.trainable]
        momenta = [layer.momentum for layer in settled]
        for count, light in enumerate(lights):
            for layer in settled:
                layer.momentum = count / (count + 1)
            self.generator(light, training=True)
        for layer, momentum in zip(settled, momenta, strict=True):
            layer.momentum = momentum

    def begin(self, phase: Phase) -> Step:
        """Forget Adam's moments of the generator and compile the phase's step.

        The step takes light, colour, the rate and the weight of the GAN term, and returns `LOSSES` stacked.
        """
        for adam in self.adams:
            for variable in adam.variables:
                variable.assign(ops.zeros_like(variable))
        steps = {"l1": self._l1_step, "critic": self._critic_step, "adversarial": self._adversarial_step}
        step, terms = steps[phase.objective], self._terms(phase)
        trains_encoder = phase.encoder_rate > 0
        for layer in encoder_layers(self.generator):
            layer.trainable = trains_encoder  # a frozen layer's running statistics stand still too

        @tf.function
        def compiled(light: tf.Tensor, colour: tf.Tensor, rate: tf.Tensor, gan_weight: tf.Tensor) -> tf.Tensor:
            """The step, traced once per size of picture."""
            rates = (rate, rate * phase.encoder_rate) if trains_encoder else (rate,)
            return step(light, colour, rates, gan_weight, terms)

        return compiled

    def _apply(self, tape: tf.GradientTape, loss: tf.Tensor, rates: tuple[tf.Tensor, ...]) -> None:
        parts = list(self._parts[: len(rates)])
        gradients, finite = self.loss_scale.unscaled(tape.gradient(loss, parts))
        if self.loss_scale.active:
            tf.cond(finite, lambda: self._move(rates, parts, gradients), lambda: None)
            self.loss_scale.follow(finite)
        else:
            self._move(rates, parts, gradients)

    def _move(self, rates: tuple[tf.Tensor, ...], parts: list[Any], gradients: list[Any]) -> None:
        for adam, rate, variables, wanted in zip(self.adams, rates, parts, gradients, strict=False):
            adam.learning_rate.assign(rate)
            adam.apply(wanted, variables)

    def _follow(self) -> None:
        """Running mean of all weights: over about the last quarter of the phase, until `ema_decay` bounds it."""
        steps = tf.cast(self.adams[0].iterations, tf.float32)
        decay = tf.minimum(self.preset.ema_decay, (1 + steps) / (4 + steps))
        for mean, variable in zip(self.average, self.generator.weights, strict=True):
            mean.assign_add((1 - decay) * (variable.value - mean))

    def _l1_step(self, light: tf.Tensor, colour: tf.Tensor, rates: Any, _: tf.Tensor, terms: VividTerms) -> tf.Tensor:
        with tf.GradientTape() as tape:
            ours = self.generator(light, training=True)
            distance, perceived = l1(ours, colour, terms.pixel_weights(colour)), terms.perceived(light, ours, colour)
            total = self.preset.l1_weight * distance + terms.perceptual_weight * perceived
            loss = self.loss_scale.scaled(total)
        self._apply(tape, loss, rates)
        self._follow()
        return _stacked(0.0, 0.0, 0.0, perceived, ours, colour)

    def _critic_step(self, light: tf.Tensor, colour: tf.Tensor, _: Any, __: tf.Tensor, ___: VividTerms) -> tf.Tensor:
        ours = self.generator(light, training=False)
        losses = self._teach(light, colour, ours)
        return _stacked(0.0, losses[1], losses[2], 0.0, ours, colour)

    def _adversarial_step(
        self, light: tf.Tensor, colour: tf.Tensor, rates: Any, gan_weight: tf.Tensor, terms: VividTerms
    ) -> tf.Tensor:
        with tf.GradientTape() as tape:
            ours = self.generator(light, training=True)
            fake = self.discriminator(_seen(light, ours), training=False)
            weights, perceived = terms.pixel_weights(colour), terms.perceived(light, ours, colour)
            losses = generator_loss(fake, ours, colour, gan_weight, self.preset.l1_weight, weights)
            loss = self.loss_scale.scaled(losses[0] + terms.perceptual_weight * perceived)
        self._apply(tape, loss, rates)
        self._follow()
        judged = self._teach(light, colour, tf.stop_gradient(ours))
        return _stacked(losses[1], judged[1], judged[2], perceived, ours, colour)

    def _teach(self, light: tf.Tensor, colour: tf.Tensor, ours: tf.Tensor) -> tf.Tensor:
        """One step of the discriminator; real and fake in one batch, so that its spectral norms are taken once."""
        variables = self.discriminator.trainable_variables
        with tf.GradientTape() as tape:
            pictures = ops.concatenate([_seen(light, colour), _seen(light, ours)], axis=0)
            real, fake = ops.split(self.discriminator(pictures, training=True), 2, axis=0)
            losses = discriminator_loss(real, fake)
            loss = losses[0]
        self.adam_discriminator.apply(tape.gradient(loss, variables), variables)
        return losses

    def state(self) -> dict[str, np.ndarray]:
        """Every array that resuming needs, by name."""
        return {name: np.asarray(variable) for name, variable in self._named()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Put back what `state` gave."""
        for name, variable in self._named():
            if name in state or not name.startswith("loss_scale"):  # a run that goes on elsewhere finds its own scale
                variable.assign(state[name])

    def _named(self) -> list[tuple[str, Any]]:
        groups = {
            "generator": self.generator.weights,
            "discriminator": self.discriminator.weights,
            "average": self.average,
            "adam_decoder": self.adams[0].variables,
            "adam_encoder": self.adams[1].variables,
            "adam_discriminator": self.adam_discriminator.variables,
            "loss_scale": self.loss_scale.variables,
        }
        return [(f"{group}{i}", v) for group, variables in groups.items() for i, v in enumerate(variables)]


def _seen(light: tf.Tensor, colour: tf.Tensor) -> tf.Tensor:
    """What the discriminator sees: light shrunk to the colour's size beside the colour, `[B, S/2, S/2, 3]`."""
    return ops.concatenate([ops.average_pool(light, 2, 2), colour], axis=-1)


def _stacked(gan: Any, real: Any, fake: Any, perceived: Any, ours: tf.Tensor, colour: tf.Tensor) -> tf.Tensor:
    ratio = ops.mean(_chroma(ours)) / (ops.mean(_chroma(colour)) + 1e-6)
    return ops.stack([ops.cast(v, "float32") for v in (gan, l1(ours, colour), real, fake, ratio, perceived)])


def _chroma(colour: tf.Tensor) -> tf.Tensor:
    return ops.sqrt(ops.sum(ops.square(colour), axis=-1))
