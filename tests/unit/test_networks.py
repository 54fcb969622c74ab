from pathlib import Path

import keras
import numpy as np
import pytest
from versions_made import ARCHITECTURE

from model.config import PRESETS, Architecture, ConfigError, architecture_from, preset
from model.networks import build_discriminator, build_generator, encoder_layers
from model.weights_file import WeightsFileError, blend_weights, read_weights, write_weights

PROTOTYPE = Path(__file__).parents[2].parent / "shared" / "reference" / "prototype" / "generator.npz"


def test_plain_generator_halves_the_side_and_stays_in_range():
    light = np.random.default_rng(0).uniform(-1, 1, (2, 64, 96, 1)).astype(np.float32)
    colour = np.asarray(build_generator(ARCHITECTURE)(light, training=False))
    assert colour.shape == (2, 32, 48, 2)
    assert np.abs(colour).max() <= 1


def test_lite0_generator_has_the_documented_size():
    generator = build_generator(Architecture())
    assert generator.count_params() == 5_282_114
    assert generator.output_shape == (None, None, None, 2)
    names = {layer.name for layer in encoder_layers(generator) if layer.weights}
    assert "_conv_stem" in names
    assert "ab" not in names and "d0c" not in names
    assert sum(name.endswith("_depthwise_conv") for name in names) == 16


def test_lite2_generator_sees_the_scene():
    generator = build_generator(Architecture(kind="lite2_unet", sees_scene=True))
    assert generator.count_params() == 7_577_682
    light = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 1)).astype(np.float32)
    before = np.asarray(generator(light, training=False))
    kernel, bias = generator.get_layer("scene").get_weights()
    assert not kernel.any(), "a new generator starts without a view of the scene"
    generator.get_layer("scene").set_weights([kernel, bias + 1])
    assert np.abs(np.asarray(generator(light, training=False)) - before).max() > 1e-4
    with pytest.raises(ConfigError, match="no view of the scene"):
        build_generator(Architecture(kind="plain_unet", sees_scene=True))


def test_prototype_weights_fit_in_their_order():
    if not PROTOTYPE.exists():
        pytest.skip("the prototype's weights are not on this machine")
    generator = build_generator(Architecture())
    read_weights(generator, PROTOTYPE)
    flat = np.asarray(generator(np.zeros((1, 64, 64, 1), np.float32), training=False))
    assert np.isfinite(flat).all() and np.abs(flat).max() < 0.3


def test_discriminator_judges_patches():
    logits = np.asarray(build_discriminator()(np.zeros((2, 64, 64, 3), np.float32), training=False))
    assert logits.shape == (2, 8, 8, 1)


def test_unknown_kinds_and_presets_are_named():
    with pytest.raises(ConfigError, match="kind"):
        build_generator(Architecture(kind="transformer"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="default, vivid, finetune, adversarial, textbook"):
        preset("defualt")
    with pytest.raises(ConfigError, match="not one this release"):
        architecture_from({"heads": 8})


@pytest.mark.parametrize("recipe", PRESETS.values(), ids=PRESETS)
def test_presets_keep_the_stated_objective(recipe):
    assert sum(phase.share for phase in recipe.phases) == pytest.approx(1)
    assert (recipe.l1_weight, recipe.critic_rate, recipe.beta_1) == (100.0, 2e-4, 0.5)
    last = recipe.phases[-1]
    assert (last.objective, last.rate) == ("adversarial", 2e-4)
    assert last.decay_share == (0.6 if recipe.name == "vivid" else 0)  # pix2pix too lets the rate fall at the end
    assert all(phase.size_px % 32 == 0 for phase in recipe.phases)


def test_weights_file_round_trip_and_its_refusals(tmp_path):
    first, second = build_generator(ARCHITECTURE), build_generator(ARCHITECTURE)
    write_weights(first, tmp_path / "w.npz")
    read_weights(second, tmp_path / "w.npz")
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a).astype(np.float16), np.asarray(b).astype(np.float16))
    third = build_generator(ARCHITECTURE)
    write_weights(third, tmp_path / "third.npz")
    blend_weights(second, tmp_path / "w.npz", tmp_path / "third.npz", 0.25)
    for a, b, c in zip(first.weights, third.weights, second.weights, strict=True):
        np.testing.assert_allclose(0.75 * np.asarray(a) + 0.25 * np.asarray(b), np.asarray(c), atol=2e-3)
    with pytest.raises(WeightsFileError, match="architecture"):
        read_weights(build_discriminator(), tmp_path / "w.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:500])
    with pytest.raises(WeightsFileError, match="cannot be read"):
        read_weights(second, tmp_path / "cut.npz")
    with pytest.raises(WeightsFileError, match="cannot be read"):
        read_weights(second, tmp_path / "absent.npz")


def test_weights_that_are_no_numbers_are_not_written(tmp_path):
    net = build_generator(ARCHITECTURE)
    net.weights[0].assign(np.full(net.weights[0].shape, np.nan))
    with pytest.raises(WeightsFileError, match="number"):
        write_weights(net, tmp_path / "w.npz")
    assert not list(tmp_path.iterdir())


def test_a_new_generator_starts_near_gray():
    light = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 1)).astype(np.float32)
    for kind in ("plain_unet", "lite2_unet"):
        keras.utils.set_random_seed(1)
        colour = np.asarray(build_generator(Architecture(kind=kind))(light, training=True))
        assert 0 < np.abs(colour).mean() < 0.1  # 0.3 to 0.5 with Glorot's own spread
