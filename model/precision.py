"""Mixed precision on GPUs: the generator side computes in 16 bits; weights, last layers and losses stay in 32.

After Micikevicius et al., "Mixed Precision Training", ICLR 2018. The discriminator, a small part of the work, stays in
32 bits altogether: the power iterations of its spectral normalisation would suffer.
"""

from typing import Any, Final, Literal

import keras
import tensorflow as tf

Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]

FIRST_SCALE: Final = 2.0**13
#: steps without overflow after which the scale is doubled
GROW_AFTER: Final = 2000
_LEAST_SCALE: Final = 1.0
_MOST_SCALE: Final = 2.0**24


def chosen(wanted: Precision) -> str:
    """The policy for `wanted`: with "auto" mixed_float16 where TensorFlow sees a GPU, else float32."""
    if wanted != "auto":
        return wanted
    return "mixed_float16" if tf.config.list_logical_devices("GPU") else "float32"


def mix(net: keras.Model, policy: str) -> None:
    """Let a built net compute by a policy; its weights stay float32, and so does its last layer's work."""
    for layer in net.layers[:-1]:
        if not isinstance(layer, keras.layers.InputLayer):
            layer.dtype_policy = policy


class LossScale:
    """The factor that keeps small gradients representable in float16; one for all of the generator's optimisers.

    A step whose gradients overflow is left out and the factor is halved; it doubles after `GROW_AFTER` good steps.
    """

    def __init__(self, policy: str) -> None:
        self.active = policy == "mixed_float16"
        self._scale = tf.Variable(FIRST_SCALE if self.active else 1.0, trainable=False)
        self._good = tf.Variable(0, trainable=False, dtype=tf.int32)

    @property
    def variables(self) -> list[tf.Variable]:
        """What a checkpoint keeps; nothing where no scaling is needed."""
        return [self._scale, self._good] if self.active else []

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss to take gradients of."""
        return loss * self._scale if self.active else loss

    def unscaled(self, gradients: list[list[Any]]) -> tuple[list[list[Any]], tf.Tensor]:
        """Gradients of the loss itself, and whether all of them are numbers; per optimiser, one for each variable."""
        if not self.active:
            return gradients, tf.constant(True)
        plain = [[g / self._scale for g in part] for part in gradients]
        return plain, tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for part in plain for g in part])

    def follow(self, finite: tf.Tensor) -> None:
        """Adapt the factor to the step that was just tried."""
        if not self.active:
            return
        good = tf.where(finite, self._good + 1, 0)
        grown = good >= GROW_AFTER
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        self._scale.assign(tf.clip_by_value(self._scale * factor, _LEAST_SCALE, _MOST_SCALE))
        self._good.assign(tf.where(grown, 0, good))
