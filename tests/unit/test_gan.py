import keras
import numpy as np
import pytest
import tensorflow as tf
from nets_made import FULL, SMALL, batch, phase

from model.checkpoints import load_checkpoint, save_checkpoint
from model.gan import LOSSES, Adversaries
from model.networks import encoder_layers

RATE = tf.constant(2e-4)


@pytest.fixture
def players():
    keras.utils.set_random_seed(1)
    return Adversaries(SMALL)


def copies(variables):
    return [np.array(variable) for variable in variables]


def moved(before, variables):
    return [not np.array_equal(old, np.array(new)) for old, new in zip(before, variables, strict=True)]


def test_an_l1_step_moves_the_generator_alone_and_comes_nearer(players):
    generator, critic = copies(players.generator.trainable_variables), copies(players.discriminator.weights)
    step = players.begin(phase("l1"))
    losses = [dict(zip(LOSSES, step(*batch(), tf.constant(3e-3), FULL).numpy(), strict=True)) for _ in range(8)]
    assert losses[-1]["g_l1"] < losses[0]["g_l1"]
    assert all(moved(generator, players.generator.trainable_variables))
    assert not any(moved(critic, players.discriminator.weights))


def test_a_critic_step_moves_the_discriminator_alone(players):
    generator, critic = copies(players.generator.weights), copies(players.discriminator.trainable_variables)
    players.begin(phase("critic"))(*batch(), RATE, FULL)
    assert not any(moved(generator, players.generator.weights))
    assert all(moved(critic, players.discriminator.trainable_variables))


def test_an_adversarial_step_moves_both_by_about_the_rate(players):
    generator = copies(players.generator.trainable_variables)
    critic = copies(players.discriminator.trainable_variables)
    losses = players.begin(phase("adversarial"))(*batch(), RATE, FULL).numpy()
    assert losses.shape == (len(LOSSES),) and np.isfinite(losses).all()
    assert all(moved(critic, players.discriminator.trainable_variables))
    for old, new in zip(generator, players.generator.trainable_variables, strict=True):
        assert 0 < np.abs(np.array(new) - old).max() < 4e-4  # Adam's first step is at most its rate


def test_a_frozen_encoder_stands_still_with_its_statistics(players):
    encoder = [w for layer in players.generator.layers if layer.name.startswith("p") for w in layer.weights]
    before, decoder = copies(encoder), copies(players.generator.get_layer("ab").weights)
    players.begin(phase("adversarial", encoder_rate=0.0))(*batch(), RATE, FULL)
    assert not any(moved(before, encoder))
    assert all(moved(decoder, players.generator.get_layer("ab").weights))
    players.begin(phase("l1"))(*batch(), RATE, FULL)
    assert all(moved(before, encoder))


def test_the_running_mean_follows(players):
    start = copies(players.average)
    players.begin(phase("l1"))(*batch(), tf.constant(1e-2), FULL)
    for old, mean, now in zip(start, players.average, players.generator.weights, strict=True):
        decay = 2 / 5  # after one step
        np.testing.assert_allclose(np.array(mean), decay * old + (1 - decay) * np.array(now), rtol=1e-4, atol=1e-6)
    before = copies(players.generator.weights)
    with players.averaged():
        assert any(moved(before, players.generator.weights))
    assert not any(moved(before, players.generator.weights))
    players.take_average()
    np.testing.assert_array_equal(np.array(players.generator.weights[0]), np.array(players.average[0]))


def test_the_gan_weight_decides_what_the_generator_follows(players):
    state, step = players.state(), players.begin(phase("adversarial"))
    step(*batch(), RATE, tf.constant(0.0))
    without = copies(players.generator.weights)
    players.restore(state)
    step(*batch(), RATE, tf.constant(1000.0))
    assert any(moved(without, players.generator.weights))


def test_the_discriminators_gain_is_bounded(players):
    step = players.begin(phase("critic"))
    for _ in range(10):
        step(*batch(), tf.constant(1e-2), FULL)
    for name in ("c0", "c1", "c2"):
        kernel = next(w for w in players.discriminator.weights if f"{name}/kernel" in w.path)
        norm = np.linalg.svd(np.array(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        assert norm < 2


def test_a_checkpoint_brings_everything_back_and_survives_a_torn_successor(players, tmp_path):
    players.begin(phase("adversarial"))(*batch(), RATE, FULL)
    save_checkpoint(tmp_path, players.state(), {"step": 1})
    (tmp_path / "step_0000002.npz").write_bytes(b"torn")  # killed while writing: the pointer still names step 1
    arrays, record = load_checkpoint(tmp_path)
    assert record == {"step": 1}
    other = Adversaries(SMALL)
    other.restore(arrays)
    for name, value in players.state().items():
        np.testing.assert_array_equal(other.state()[name], value)
    save_checkpoint(tmp_path, players.state(), {"step": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "step_0000003.npz"]
    assert load_checkpoint(tmp_path / "absent") is None


def test_settled_statistics_are_those_of_the_batches(players):
    light, _ = batch()
    behind = copies(players.generator.weights)
    players.settle(phase("l1"), [light, light])
    settled = np.asarray(players.generator(light, training=False))
    np.testing.assert_allclose(settled, np.asarray(players.generator(light, training=True)), atol=1e-3)
    assert any(moved(behind, players.generator.weights))
    assert all(layer.momentum == 0.99 for layer in players.generator.layers if hasattr(layer, "momentum"))


def test_an_encoder_that_stood_still_keeps_its_statistics(players):
    inside = [w for layer in encoder_layers(players.generator) for w in layer.weights]
    before = copies(inside)
    players.settle(phase("adversarial", encoder_rate=0.0), [batch()[0]])
    assert not any(moved(before, inside))
