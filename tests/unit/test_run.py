"""Budget and schedules of a training run, by numbers worked out by hand."""

from pathlib import Path

import pytest

from model.config import Phase, Preset
from model.run import Run, gan_weight_at, rate_at

L1 = Phase(name="l1", objective="l1", share=0.25, size_px=64, rate=6e-4, decay_share=0.5)
GAN = Phase(name="gan", objective="adversarial", share=0.75, size_px=64, rate=2e-4, ramp=0.3)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 6e-6), (49, 3e-4), (98, 5.94e-4), (99, 6e-4), (100, 6e-4), (9999, 6e-4)]
)
def test_an_l1_phase_warms_up_over_a_hundred_steps(step, rate):
    assert rate_at(L1, 0.25, step) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(
    ("part", "rate"), [(0.0, 6e-4), (0.5, 6e-4), (0.625, 5.12132e-4), (0.75, 3e-4), (0.875, 8.7868e-5), (1.0, 0.0)]
)
def test_a_cosine_takes_the_rate_to_nothing_over_the_last_half(part, rate):
    assert rate_at(L1, part, 9999) == pytest.approx(rate, rel=1e-5, abs=1e-12)
    assert rate_at(L1, part, 49) == pytest.approx(rate / 2, rel=1e-5, abs=1e-12)  # still warming up


def test_an_adversarial_phase_starts_at_its_rate_and_stays_there():
    assert [rate_at(GAN, part, step) for part, step in ((0.0, 0), (0.5, 10), (1.0, 5000))] == [2e-4] * 3


@pytest.mark.parametrize(("part", "weight"), [(0.0, 0.0), (0.03, 0.1), (0.15, 0.5), (0.3, 1.0), (0.9, 1.0)])
def test_the_gan_term_rises_over_the_ramp(part, weight):
    assert gan_weight_at(GAN, part) == pytest.approx(weight)
    assert gan_weight_at(L1, part) == 1.0  # no ramp


def run(minutes: float | None, steps: int | None, **state) -> Run:
    preset = Preset(name="p", phases=(L1, GAN), minutes=2.0)
    return Run(output=Path(), preset=preset, seed=0, minutes=minutes, steps=steps, **state)


def test_the_nearer_cap_decides_how_far_a_run_is():
    assert run(None, 200, step=50, elapsed_s=1e6).fraction() == 0.25  # steps alone: time decides nothing
    assert run(10.0, None, step=10**6, elapsed_s=150.0).fraction() == 0.25
    assert run(10.0, 200, step=50, elapsed_s=300.0).fraction() == 0.5
    assert run(10.0, 200, step=150, elapsed_s=300.0).fraction() == 0.75
    assert run(None, None, elapsed_s=30.0).fraction() == 0.25  # the preset's two minutes
    assert run(None, 200, step=900).fraction() == 1.0


def test_a_phase_has_its_share_of_the_budget():
    assert run(None, 200, step=25).part() == pytest.approx(0.5)
    assert run(None, 200, step=50).part() == 1.0
    assert run(None, 200, step=50, phase=1).part() == 0.0
    assert run(None, 200, step=125, phase=1).part() == pytest.approx(0.5)
    assert run(None, 200, step=200, phase=1).part() == 1.0
