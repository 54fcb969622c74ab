"""Mixed precision: where 16 bits end, and how the loss is scaled. bfloat16 and float16 are tried on the CPU."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from nets_made import FULL, RATE, SMALL, batch, phase

from model import precision
from model.gan import Adversaries
from model.precision import LossScale, chosen
from model.weights_file import read_weights, write_weights


def players(policy):
    keras.utils.set_random_seed(1)
    return Adversaries(SMALL, policy)


def test_sixteen_bits_only_where_there_is_a_gpu(monkeypatch):
    assert chosen("mixed_bfloat16") == "mixed_bfloat16"
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    assert chosen("auto") == "float32"
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"])
    assert chosen("auto") == "mixed_float16"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_the_inside_is_16_bit_and_weights_answer_and_losses_are_32(policy, tmp_path):
    mixed, plain = players(policy), players("float32")
    assert {str(v.dtype) for v in (*mixed.generator.weights, *mixed.average)} >= {"float32"}
    assert {str(v.dtype) for v in mixed.generator.weights} == {"float32"}
    kinds = [layer.compute_dtype for layer in mixed.generator.layers[1:]]
    assert set(kinds[:-1]) == {policy.removeprefix("mixed_")} and kinds[-1] == "float32"
    light, _ = batch()
    ours = mixed.generator(light, training=False)
    assert ours.dtype == tf.float32
    np.testing.assert_allclose(ours, plain.generator(light, training=False), atol=0.02)
    for objective in ("l1", "critic", "adversarial"):
        step = mixed.begin(phase(objective))
        losses = np.array([step(*batch(), RATE, FULL).numpy() for _ in range(4)])
        assert np.isfinite(losses).all() and losses.dtype == np.float32
        if objective == "l1":
            assert losses[-1, 1] < losses[0, 1]
    write_weights(mixed.generator, tmp_path / "g.npz")  # as ever: fp16 on disk, for a net of 32 bits
    read_weights(plain.generator, tmp_path / "g.npz")
    for mine, read in zip(mixed.generator.weights, plain.generator.weights, strict=True):
        np.testing.assert_allclose(np.array(mine), np.array(read), rtol=1e-3, atol=1e-4)


def test_a_step_that_overflows_is_left_out_and_halves_the_scale():
    mixed = players("mixed_float16")
    step = mixed.begin(phase("l1"))
    mixed.loss_scale.variables[0].assign(1e38)  # scaled loss and gradients are beyond float32
    before = [np.array(v) for v in mixed.generator.trainable_variables]
    step(*batch(), RATE, FULL)
    for old, new in zip(before, mixed.generator.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, np.array(new))
    assert float(mixed.loss_scale.variables[0]) < 1e38


def test_the_scale_grows_after_many_good_steps(monkeypatch):
    monkeypatch.setattr(precision, "GROW_AFTER", 3)
    scale = LossScale("mixed_float16")
    first = float(scale.scaled(tf.constant(1.0)))
    for finite in (True, True, True, False):
        scale.follow(tf.constant(finite))
    assert float(scale.scaled(tf.constant(1.0))) == first * 2 / 2
    gradients, finite = scale.unscaled([[tf.constant([first * 3])], [tf.constant([first])]])
    assert [float(part[0][0]) for part in gradients] == [3.0, 1.0] and bool(finite)
    assert not bool(scale.unscaled([[tf.constant([np.inf])], [tf.constant([1.0])]])[1])
    idle = LossScale("float32")
    assert idle.variables == [] and float(idle.scaled(tf.constant(5.0))) == 5.0


def test_a_run_of_32_bits_goes_on_in_16():
    plain, mixed = players("float32"), players("mixed_float16")
    state = plain.state()
    assert not any(name.startswith("loss_scale") for name in state)
    mixed.restore(state)
    for one, other in zip(plain.generator.weights, mixed.generator.weights, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))
    again = players("mixed_float16")
    again.restore(mixed.state())
    assert float(again.loss_scale.variables[0]) == precision.FIRST_SCALE
