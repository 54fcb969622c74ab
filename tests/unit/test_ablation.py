"""Presets with a part switched off, and what every preset has to be."""

import dataclasses
import itertools
import re

import pytest

from model.ablation import PARTS, without
from model.config import PRESETS, ConfigError
from worker.train_command import train

DEFAULT, TEXTBOOK = PRESETS["default"], PRESETS["textbook"]


def objectives(preset):
    return [phase.objective for phase in preset.phases]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_the_shares_of_every_preset_add_up(preset):
    assert sum(phase.share for phase in preset.phases) == pytest.approx(1)
    assert len({phase.name for phase in preset.phases}) == len(preset.phases), "weights are named by their phase"


def test_without_the_encoders_weights_it_learns_from_scratch_and_never_stands_still():
    reduced = without(DEFAULT, ["encoder"])
    assert reduced.name == "default-without-encoder"
    assert reduced.encoder_weights == "none"
    assert {phase.encoder_rate for phase in reduced.phases} == {1.0}
    back = tuple(
        dataclasses.replace(phase, encoder_rate=old.encoder_rate)
        for phase, old in zip(reduced.phases, DEFAULT.phases, strict=True)
    )
    assert dataclasses.replace(reduced, name="default", encoder_weights="imagenet", phases=back) == DEFAULT


def test_without_warm_up_it_is_adversarial_from_step_0():
    reduced = without(DEFAULT, ["warmup"])
    (phase,) = reduced.phases
    assert phase.objective == "adversarial" and phase.share == 1
    assert phase.ramp == 0, "a ramp would begin with L1 alone"
    assert phase.encoder_rate == 0.3, "as in the L1 phases"
    assert reduced.encoder_weights == "imagenet"


def test_without_gan_the_l1_phases_share_all_the_time():
    reduced = without(DEFAULT, ["gan"])
    assert objectives(reduced) == ["l1", "l1", "l1"]
    assert [phase.share for phase in reduced.phases] == pytest.approx([0.03 / 0.69, 0.37 / 0.69, 0.29 / 0.69])


def test_without_film_light_is_never_aged():
    reduced = without(DEFAULT, ["film"])
    assert reduced.sampling.film_share == 0
    sampling = dataclasses.replace(reduced.sampling, film_share=DEFAULT.sampling.film_share)
    assert dataclasses.replace(reduced, name="default", sampling=sampling) == DEFAULT


def test_several_parts_in_any_order():
    for parts in itertools.permutations(["film", "warmup", "encoder"]):
        reduced = without(DEFAULT, [*parts, parts[0]])
        assert reduced == without(DEFAULT, parts)
        assert reduced.name == "default-without-encoder-warmup-film"
        assert reduced.phases[0].encoder_rate == 1.0
    assert without(DEFAULT, []) is DEFAULT


@pytest.mark.parametrize("part", PARTS)
def test_shares_still_add_up(part):
    for preset in (DEFAULT, PRESETS["vivid"]):
        assert sum(phase.share for phase in without(preset, [part]).phases) == pytest.approx(1)


def test_what_cannot_be_left_out_is_named():
    with pytest.raises(ConfigError, match="go without 'colour'; choose from encoder, warmup, gan, film"):
        without(DEFAULT, ["colour"])
    with pytest.raises(ConfigError, match="Nothing would be left"):
        without(DEFAULT, ["warmup", "gan"])
    with pytest.raises(ConfigError, match="'textbook' has no film"):
        without(TEXTBOOK, ["film"])
    with pytest.raises(ConfigError, match="'finetune' has no encoder"):
        without(PRESETS["finetune"], ["encoder"])


def test_textbook_is_the_method_as_stated():
    """Plain U-Net from no weights of others, GAN + 100·L1 in full from step 0, both Adams 2e-4 with β₁ 0.5."""
    (phase,) = TEXTBOOK.phases
    assert TEXTBOOK.architecture.kind == "plain_unet" and TEXTBOOK.encoder_weights == "none"
    assert phase.objective == "adversarial" and (phase.ramp, phase.decay_share, phase.encoder_rate) == (0, 0, 1)
    assert (TEXTBOOK.l1_weight, TEXTBOOK.beta_1, TEXTBOOK.critic_rate, phase.rate) == (100, 0.5, 2e-4, 2e-4)
    assert (phase.pixel_rarity_power, phase.perceptual_weight) == (0, 0)
    sampling = TEXTBOOK.sampling
    assert (sampling.film_share, sampling.rarity_power, sampling.source_power) == (0, 0, 1)
    assert sampling.least_colourfulness == 0


def test_the_verb_names_every_part_and_every_preset():
    options = {option.name: option for option in train.params}
    assert tuple(options["without"].type.choices) == PARTS
    assert all(f"{part}: " in options["without"].help for part in PARTS)
    assert re.split(r", | or ", options["preset"].help.rstrip(".")) == list(PRESETS)
