import math

import keras
import numpy as np
import pytest
from keras import ops

from model.losses import binary_cross_entropy, discriminator_loss, generator_loss, l1


def number(tensor):
    return np.asarray(tensor).tolist()


def test_cross_entropy_against_hand_made_numbers():
    logits = ops.convert_to_tensor(np.array([0.0, 2.0], np.float32))
    expected = (math.log(2) - math.log(1 / (1 + math.exp(-2)))) / 2
    assert number(binary_cross_entropy(logits, 1.0)) == pytest.approx(expected, abs=1e-6)
    expected = (math.log(2) - math.log(1 - 1 / (1 + math.exp(-2)))) / 2
    assert number(binary_cross_entropy(logits, 0.0)) == pytest.approx(expected, abs=1e-6)


def test_cross_entropy_is_finite_for_wild_logits():
    logits = ops.convert_to_tensor(np.array([-1e4, 1e4], np.float32))
    assert number(binary_cross_entropy(logits, 1.0)) == pytest.approx(5000)


def test_l1_is_the_mean_over_pixels_and_axes():
    ours = np.array([[[[0.1, -0.2], [0.0, 0.4]]]], np.float32)
    assert number(l1(ops.convert_to_tensor(ours), ops.zeros_like(ours))) == pytest.approx(0.175)


def test_weights_count_a_pixels_both_axes():
    ours = ops.convert_to_tensor(np.array([[[[0.1, -0.2], [0.0, 0.4]]]], np.float32))
    weights = ops.convert_to_tensor(np.array([[[[1.5], [0.5]]]], np.float32))
    by_hand = (1.5 * (0.1 + 0.2) + 0.5 * (0.0 + 0.4)) / 4
    assert by_hand == pytest.approx(0.1625)
    assert number(l1(ours, ops.zeros_like(ours), weights)) == pytest.approx(by_hand, abs=1e-6)
    total, gan, distance = number(generator_loss(ops.zeros((1, 1)), ours, ops.zeros_like(ours), 1.0, 100.0, weights))
    assert distance == pytest.approx(by_hand, abs=1e-6)
    assert total == pytest.approx(gan + 16.25, abs=1e-4)


def test_generator_loss_is_weighted_gan_plus_100_l1():
    ours = ops.convert_to_tensor(np.full((1, 2, 2, 2), 0.03, np.float32))
    fake = ops.zeros((1, 1, 1, 1))
    total, gan, distance = number(generator_loss(fake, ours, ops.zeros_like(ours), 0.5, 100.0))
    assert gan == pytest.approx(math.log(2), abs=1e-6)
    assert distance == pytest.approx(0.03)
    assert total == pytest.approx(0.5 * math.log(2) + 3.0, abs=1e-5)


def test_discriminator_loss_is_real_plus_fake():
    total, real, fake = number(discriminator_loss(ops.ones((1, 2, 2, 1)) * 3, ops.ones((1, 2, 2, 1)) * -3))
    assert real == pytest.approx(math.log(1 + math.exp(-3)), abs=1e-6)
    assert fake == pytest.approx(real, abs=1e-6)
    assert total == pytest.approx(2 * real, abs=1e-6)


def test_keras_own_losses_agree():
    random = np.random.default_rng(3)
    logits, label = random.normal(0, 3, (2, 5, 5, 1)).astype(np.float32), np.ones((2, 5, 5, 1), np.float32)
    keras_own = keras.losses.BinaryCrossentropy(from_logits=True)
    for value in (0.0, 1.0):
        ours = number(binary_cross_entropy(ops.convert_to_tensor(logits), value))
        assert ours == pytest.approx(float(keras_own(label * value, logits)), abs=1e-5)
    ours, truth = random.normal(0, 0.3, (2, 2, 8, 8, 2)).astype(np.float32)
    distance = number(l1(ops.convert_to_tensor(ours), ops.convert_to_tensor(truth)))
    assert distance == pytest.approx(float(keras.losses.MeanAbsoluteError()(truth, ours)), abs=1e-6)
