"""The gate by made numbers: each point fails for its own reason, and nothing else lets a challenger through."""

import dataclasses

import numpy as np
import pytest

from model.gate import judge, relative_change
from model.scores import PhotoScore
from model.verdict import CURATED, OPERATOR, Artefact, Judged, Outcome, Thresholds, Verdict

QUICK = Thresholds(resamples=1000)


def row(number: int, collection: str, category: str = "street", **figures: float) -> Judged:
    spread = 1 + 0.3 * np.sin(number)
    score = {
        "psnr": 25.0, "ab_l1": 8.0 * spread, "de00": 9.0, "cf": 30.0, "cf_truth": 40.0, "chroma": 18.0,
        "chroma_truth": 20.0, "d_a": 0.5, "d_b": -0.5, "truth_truth": 1.0, "ours_ours": 1.0, "truth_ours": 0.6,
    }  # fmt: skip
    skin = {name: figures.pop(name) for name in ("skin_share", "skin_hue", "zombie_share") if name in figures}
    return Judged(score=PhotoScore(file=f"{number}.png", category=category, **score | figures),
                  collection=collection, **skin)  # fmt: skip


def both(curated: int = 60, operator: int = 60) -> list[Judged]:
    return [row(i, CURATED) for i in range(curated)] + [row(100 + i, OPERATOR) for i in range(operator)]


def changed(rows: list[Judged], factor: float = 1.0, where=lambda row: True, **figures: float) -> list[Judged]:
    """The rows with ab-L1 times a factor, and figures replaced, where a condition holds."""
    return [
        dataclasses.replace(
            r, score=dataclasses.replace(r.score, ab_l1=r.score.ab_l1 * factor * (1 + 0.01 * np.cos(i)), **figures)
        ) if where(r) else r
        for i, r in enumerate(rows)
    ]  # fmt: skip


def curated(r: Judged) -> bool:
    return r.collection == CURATED


def verdict(challenger: list[Judged], champion: list[Judged] | None = None, leaks=(), **artefact) -> Verdict:
    return judge(champion or both(), challenger, Artefact(**artefact), leaks, QUICK)


def failed(found: Verdict) -> set[tuple[int, str]]:
    return {(check.point, check.name) for check in found.checks if not check.ok}


def test_a_gain_on_the_new_photos_without_any_loss_is_promoted() -> None:
    found = verdict(changed(both(), 0.9, curated))
    assert (found.outcome, found.reasons) == (Outcome.PROMOTED, ())
    gain = next(check for check in found.checks if check.point == 3)
    assert gain.change == pytest.approx(-0.1, abs=0.01) and gain.interval is not None and gain.interval[1] < 0


def test_an_equal_challenger_is_rejected_for_want_of_a_gain() -> None:
    found = verdict(both())
    assert found.outcome is Outcome.REJECTED
    assert failed(found) == {(3, "gain")}


@pytest.mark.parametrize(
    ("artefact", "point"),
    [
        ({"problem": "torn"}, (0, "loads")),
        ({"size_ratio": 1.2}, (0, "size")),
        ({"latency_ratio": 1.2, "same_architecture": False}, (0, "latency")),
        ({"failed": ("|ΔL*| at 8 bit is 3",)}, (1, "invariants")),
    ],
)
def test_an_unsound_artefact_is_rejected(artefact, point) -> None:
    found = verdict(changed(both(), 0.9, curated), **artefact)
    assert found.outcome is Outcome.REJECTED and failed(found) == {point}


def test_the_latency_of_the_same_layers_is_only_told() -> None:
    assert verdict(changed(both(), 0.9, curated), latency_ratio=3.0).outcome is Outcome.PROMOTED


def test_a_gain_on_the_new_photos_does_not_hide_a_loss_on_the_others() -> None:
    found = verdict(changed(changed(both(), 0.5, curated), 1.2, lambda r: not curated(r)))
    assert failed(found) == {(2, "fidelity, operator"), (4, "slice operator/street")}
    assert any("operator" in reason for reason in found.reasons)


def test_a_loss_that_may_be_chance_is_not_proven_harmless() -> None:
    noisy = [
        dataclasses.replace(r, score=dataclasses.replace(r.score, ab_l1=r.score.ab_l1 * (1.5 if i % 2 else 0.5)))
        for i, r in enumerate(both())
    ]
    assert any(point == 2 for point, _ in failed(verdict(noisy)))


def test_one_slice_must_not_pay_for_the_others_and_small_ones_are_only_told() -> None:
    kinds = ("people", "street", "street")
    champion = [
        dataclasses.replace(r, score=dataclasses.replace(r.score, category=kinds[i % 3]))
        for i, r in enumerate(both(90, 90))
    ]
    worse = changed(changed(champion, 0.8), 1.4, lambda r: r.score.category == "people" and not curated(r))
    assert (4, "slice operator/people") in failed(verdict(worse, champion))
    few = champion[:70] + champion[90:]
    few = [r for i, r in enumerate(few) if r.score.category != "people" or i < 30]
    worse = changed(changed(few, 0.8), 1.2, lambda r: r.score.category == "people")
    found = verdict(worse, few)
    assert "curated/people" in found.reported_slices and found.reported_slices["curated/people"][0] < 20
    assert not any("people" in name for _, name in failed(found))


@pytest.mark.parametrize(
    ("figures", "names"),
    [
        ({"d_a": 4.0}, {"bias a, operator"}),
        ({"d_b": -5.0}, {"bias b, operator"}),
        ({"chroma": 10.0}, {"chroma, operator"}),
        ({"chroma": 26.0}, {"chroma, operator"}),
    ],
)
def test_a_cast_or_dull_or_loud_colours_are_rejected(figures, names) -> None:
    found = verdict(changed(changed(both(), 0.9, curated), 1.0, lambda r: not curated(r), **figures))
    assert {name for point, name in failed(found) if point == 5} == names


def test_a_bound_that_the_champion_breaks_does_not_keep_a_better_one_out() -> None:
    champion = changed(both(), 1.0, d_a=6.0)
    assert verdict(changed(champion, 0.9, d_a=4.0), champion).outcome is Outcome.PROMOTED
    assert verdict(changed(champion, 0.9, d_a=7.0), champion).outcome is Outcome.REJECTED


def test_skin_must_not_turn_green_or_gray() -> None:
    def with_skin(rows, hue, zombies):
        return [dataclasses.replace(r, skin_share=0.1, skin_hue=hue, zombie_share=zombies) for r in rows]

    better = changed(both(), 0.9, curated)
    champion = with_skin(both(), 50.0, 0.05)
    assert verdict(with_skin(better, 55.0, 0.05), champion).outcome is Outcome.PROMOTED
    assert failed(verdict(with_skin(better, 120.0, 0.05), champion)) == {(5, "skin hue")}
    assert failed(verdict(with_skin(better, 55.0, 0.2), champion)) == {(5, "zombies")}
    few = Thresholds().slice_photos - 1  # with skin, of all
    found = verdict(
        with_skin(better[:few], 55.0, 0.2) + better[few:], with_skin(both()[:few], 50.0, 0.05) + both()[few:]
    )
    assert found.outcome is Outcome.PROMOTED
    assert "too few to decide" in next(check.says for check in found.checks if check.name == "zombies")


def test_a_leak_rejects_whatever_the_figures() -> None:
    found = verdict(changed(both(), 0.5), leaks=["a.png", "b.png"])
    assert failed(found) == {(7, "leakage")} and "a.png" in found.reasons[0]


@pytest.mark.parametrize(("curated_photos", "operator_photos"), [(30, 60), (60, 0), (0, 60)])
def test_without_hold_out_or_operators_set_a_person_decides(curated_photos: int, operator_photos: int) -> None:
    champion = both(curated_photos, operator_photos)
    found = verdict(changed(champion, 0.9, cf=38.0), champion)
    assert found.outcome is Outcome.NEEDS_APPROVAL and found.reasons


def test_rows_of_other_photos_are_refused() -> None:
    with pytest.raises(ValueError, match="same photos"):
        verdict(both()[::-1])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random, hits = np.random.default_rng(0), 0
    for _ in range(100):
        before = random.uniform(5, 15, 60)
        after = before * 0.95 * random.normal(1, 0.1, 60)
        low, high = relative_change(before, after, QUICK, seed=int(random.integers(1 << 30)))[1]
        hits += low <= -0.05 <= high
    assert 86 <= hits <= 100
