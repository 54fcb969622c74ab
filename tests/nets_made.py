"""A small recipe, its phases and one batch, for tests of the training step."""

from typing import Any

import numpy as np
import tensorflow as tf
from versions_made import ARCHITECTURE

from model.config import Objective, Phase, Preset

#: a recipe of nets alone; phases are given to the step one by one
SMALL = Preset(name="small", architecture=ARCHITECTURE, encoder_weights="none", phases=())
#: a rate that shows within a few steps, and the GAN term in full
RATE, FULL = tf.constant(2e-3), tf.constant(1.0)


def phase(objective: Objective = "adversarial", **changes: Any) -> Phase:
    """A whole run under one objective."""
    return Phase(name=objective, objective=objective, share=1.0, size_px=32, **changes)


def batch(size_px: int = 32, colour: float = 0.2) -> tuple[tf.Tensor, tf.Tensor]:
    """Two squares of random light, both axes of their colour the same everywhere."""
    light = np.random.default_rng(0).uniform(-1, 1, (2, size_px, size_px, 1)).astype(np.float32)
    return tf.constant(light), tf.constant(np.full((2, size_px // 2, size_px // 2, 2), colour, np.float32))
