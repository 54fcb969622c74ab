"""The gate: may a challenger take the champion's place? Figures of both on the same photos in, a verdict out.

Every point must hold: the artefact is sound, the invariants hold, fidelity is not worse, something is better, no slice
is worse, the bias is bounded, and nothing of the gate's own photos was learned from. Comparisons are paired bootstraps
over photos (Efron 1979, percentile intervals): the same photos are drawn for both. Non-inferiority asks for the upper
end of the interval, a gain for an interval that leaves out 0.
"""

from collections.abc import Callable, Sequence

import numpy as np

from model.verdict import CURATED, OPERATOR, Artefact, Check, Judged, Outcome, Thresholds, Verdict

_CHUNK = 500


def judge(
    champion: Sequence[Judged],
    challenger: Sequence[Judged],
    artefact: Artefact,
    leaks: Sequence[str],
    thresholds: Thresholds | None = None,
) -> Verdict:
    """Decide.

    Args:
        champion: its rows, one per photo.
        challenger: rows of the same photos in the same order.
        artefact: findings about the challenger's files and invariants.
        leaks: photos that were judged on and, in some form, learned from.
        thresholds: the limits; the defaults where None.

    Raises:
        ValueError: the rows are not of the same photos.
    """
    limits = thresholds or Thresholds()
    if [(r.collection, r.score.file) for r in champion] != [(r.collection, r.score.file) for r in challenger]:
        raise ValueError("champion and challenger must be judged on the same photos, in the same order")
    pairs = list(zip(champion, challenger, strict=True))
    checks = _artefact_checks(artefact, limits) + _leak_checks(leaks)
    reported: dict[str, tuple[int, float]] = {}
    if pairs:
        checks += [*_fidelity(pairs, limits), _win(pairs, limits)]
        slices, reported = _slices(pairs, limits)
        checks += slices + _bias(pairs, limits) + _skin(pairs, limits)
    return _decide(checks, reported, pairs, limits)


Pairs = list[tuple[Judged, Judged]]


def _decide(checks: list[Check], reported: dict[str, tuple[int, float]], pairs: Pairs, limits: Thresholds) -> Verdict:
    reasons = [check.says for check in checks if not check.ok]
    outcome = Outcome.REJECTED if reasons else Outcome.PROMOTED
    if not reasons:
        counts = {name: len(_of(pairs, name)) for name in (CURATED, OPERATOR)}
        if counts[CURATED] < limits.holdout_photos:
            reasons.append(
                f"Only {counts[CURATED]} curated photos could be held out; {limits.holdout_photos} are needed "
                "for a promotion without a person."
            )
        if not counts[OPERATOR]:
            reasons.append("There is no evaluation set of the operator's (setting evaluation_photos).")
        outcome = Outcome.NEEDS_APPROVAL if reasons else outcome
    ordered = tuple(sorted(checks, key=lambda check: check.point))
    return Verdict(outcome=outcome, reasons=tuple(reasons), checks=ordered, reported_slices=reported)


def _of(pairs: Pairs, collection: str) -> Pairs:
    return [pair for pair in pairs if pair[0].collection == collection]


def relative_change(
    before: np.ndarray, after: np.ndarray, limits: Thresholds, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Relative change of a mean over photos, and its paired bootstrap interval.

    Args:
        before: the champion's value of each photo, >= 0.
        after: the challenger's.
        limits: resamples and confidence.
        seed: of the draws.
    """
    n = len(before)
    random = np.random.default_rng(seed)
    draws = []
    for first in range(0, limits.resamples, _CHUNK):
        weights = random.multinomial(n, np.full(n, 1 / n), min(_CHUNK, limits.resamples - first))
        draws.append((weights @ after) / np.maximum(weights @ before, 1e-9) - 1)
    tail = 50 * (1 - limits.confidence)
    low, high = np.percentile(np.concatenate(draws), [tail, 100 - tail])
    return float(after.mean() / max(before.mean(), 1e-9) - 1), (float(low), float(high))


def _ab_l1(row: Judged) -> float:
    return row.score.ab_l1


def _d_cf(row: Judged) -> float:
    return abs(row.score.cf - row.score.cf_truth)


def _values(pairs: Pairs, measure: Callable[[Judged], float]) -> tuple[np.ndarray, np.ndarray]:
    """The measure of every photo, champion's and challenger's."""
    champion, challenger = zip(*pairs, strict=True)
    return np.array([measure(row) for row in champion]), np.array([measure(row) for row in challenger])


def _artefact_checks(artefact: Artefact, limits: Thresholds) -> list[Check]:
    """Points 0 and 1."""
    loads = "It loads in a fresh process, its weights are finite and those recorded."
    if artefact.problem:
        loads = f"It does not serve: {artefact.problem}"
    slow = not artefact.same_architecture and artefact.latency_ratio > 1 + limits.slower
    return [
        Check(point=0, name="loads", ok=not artefact.problem, says=loads),
        Check(
            point=0, name="size", ok=artefact.size_ratio <= 1 + limits.weights_larger, challenger=artefact.size_ratio,
            says=f"Its weights file is {artefact.size_ratio:.2f} times as large as the champion's.",
        ),
        Check(
            point=0, name="latency", ok=not slow, challenger=artefact.latency_ratio,
            says=f"It takes {artefact.latency_ratio:.2f} times as long as the champion"
            + (" (the same layers: measured only)." if artefact.same_architecture else "."),
        ),
        Check(
            point=1, name="invariants", ok=not artefact.failed,
            says=f"Invariants: {'; '.join(artefact.failed) or 'all hold'}.",
        ),
    ]  # fmt: skip


def _leak_checks(leaks: Sequence[str]) -> list[Check]:
    """Point 7."""
    shown = ", ".join(leaks[:5]) + (f" and {len(leaks) - 5} more" if len(leaks) > 5 else "")
    says = f"Photos it is judged on were learned from: {shown}." if leaks else "No photo of the gate was learned from."
    return [Check(point=7, name="leakage", ok=not leaks, says=says)]


def _fidelity(pairs: Pairs, limits: Thresholds) -> list[Check]:
    """Point 2, of each collection on its own: a gain on the new photos must not hide a loss on the others."""
    checks = []
    for collection in (CURATED, OPERATOR):
        if part := _of(pairs, collection):
            before, after = _values(part, _ab_l1)
            change, interval = relative_change(before, after, limits)
            ok = interval[1] <= limits.fidelity_worse
            says = (
                f"ab-L1 on the {collection} photos {_percent(change)} ({_percent(interval[0])} to "
                f"{_percent(interval[1])}); at most {_percent(limits.fidelity_worse)} is allowed."
            )
            checks.append(
                Check(point=2, name=f"fidelity, {collection}", ok=ok, says=says, champion=float(before.mean()),
                      challenger=float(after.mean()), change=change, interval=interval, photos=len(part))
            )  # fmt: skip
    return checks


def _win(pairs: Pairs, limits: Thresholds) -> Check:
    """Point 3: one of the primary measures is better, significantly."""
    candidates = [("ΔCF on all photos", pairs, _d_cf), ("ab-L1 on the curated photos", _of(pairs, CURATED), _ab_l1)]
    found = [(name, *relative_change(*_values(part, measure), limits)) for name, part, measure in candidates if part]
    name, change, interval = min(found, key=lambda one: one[2][1])
    ok = change <= -limits.least_gain and interval[1] < 0
    verdict = "is better" if ok else "Nothing is better enough; the best is"
    says = f"{name} {verdict}" if ok else f"{verdict} {name}"
    says += f": {_percent(change)} ({_percent(interval[0])} to {_percent(interval[1])})."
    return Check(point=3, name="gain", ok=ok, says=says, change=change, interval=interval)


def _slices(pairs: Pairs, limits: Thresholds) -> tuple[list[Check], dict[str, tuple[int, float]]]:
    """Point 4."""
    groups: dict[str, Pairs] = {}
    for pair in pairs:
        groups.setdefault(f"{pair[0].collection}/{pair[0].score.category}", []).append(pair)
    checks, reported = [], {}
    for name, part in sorted(groups.items()):
        before, after = _values(part, _ab_l1)
        change = float(after.mean() / max(before.mean(), 1e-9) - 1)
        if len(part) < limits.slice_photos:
            reported[name] = (len(part), change)
            continue
        says = f"Slice {name}: ab-L1 {_percent(change)}; at most {_percent(limits.slice_worse)} is allowed."
        checks.append(
            Check(point=4, name=f"slice {name}", ok=change <= limits.slice_worse, says=says, change=change,
                  champion=float(before.mean()), challenger=float(after.mean()), photos=len(part))
        )  # fmt: skip
    return checks, reported


def _bias(pairs: Pairs, limits: Thresholds) -> list[Check]:
    """Point 5: within the bounds, or at least no further out than the champion, which is no reason to keep it."""
    checks = []
    for collection in (CURATED, OPERATOR):
        part = _of(pairs, collection)
        if not part:
            continue
        for axis in ("d_a", "d_b"):
            was, now = (float(np.mean([getattr(row.score, axis) for row in side])) for side in zip(*part, strict=True))
            ok = abs(now) <= max(limits.bias, abs(was))
            says = (
                f"Mean Δ{axis[-1]} on the {collection} photos is {now:+.1f} (champion {was:+.1f}); ±{limits.bias:.0f}."
            )
            checks.append(Check(point=5, name=f"bias {axis[-1]}, {collection}", ok=ok, says=says, champion=was,
                                challenger=now, photos=len(part)))  # fmt: skip
        checks.append(_chroma(part, collection, limits))
    return checks


def _chroma(part: Pairs, collection: str, limits: Thresholds) -> Check:
    was, now = (
        float(sum(row.score.chroma for row in side) / max(sum(row.score.chroma_truth for row in side), 1e-9))
        for side in zip(*part, strict=True)
    )
    says = (
        f"Chroma on the {collection} photos is {now:.2f} of the originals' (champion {was:.2f}); "
        f"{limits.chroma_low} to {limits.chroma_high}."
    )
    ok = min(limits.chroma_low, was) <= now <= max(limits.chroma_high, was)
    return Check(point=5, name=f"chroma, {collection}", ok=ok, says=says, champion=was, challenger=now,
                 photos=len(part))  # fmt: skip


def _skin(pairs: Pairs, limits: Thresholds) -> list[Check]:
    """Point 5, people: the hue of skin, and how much of it is gray, green or blue."""
    part = [pair for pair in pairs if pair[0].skin_share > 0]
    if not part:
        return []
    sides = list(zip(*part, strict=True))
    hues = [_mean_hue([row.skin_hue for row in side]) for side in sides]
    gone = [float(np.mean([row.zombie_share for row in side])) for side in sides]
    low, high = min(limits.skin_hue_low, hues[0]), max(limits.skin_hue_high, hues[0])
    few = len(part) < limits.slice_photos  # on a handful one hand more or less decides, as in a small slice
    return [
        Check(
            point=5, name="skin hue", ok=low <= hues[1] <= high, champion=hues[0], challenger=hues[1], photos=len(part),
            says=f"Skin has a hue of {hues[1]:.0f}° (champion {hues[0]:.0f}°); {limits.skin_hue_low:.0f}° to "
            f"{limits.skin_hue_high:.0f}°.",
        ),
        Check(
            point=5, name="zombies", ok=few or gone[1] <= gone[0] + limits.zombie_worse, champion=gone[0],
            challenger=gone[1], photos=len(part),
            says=f"{100 * gone[1]:.0f} % of skin is gray, green or blue (champion {100 * gone[0]:.0f} %"
            + (f"; {len(part)} photos with skin are too few to decide)." if few else ")."),
        ),
    ]  # fmt: skip


def _mean_hue(hues: Sequence[float]) -> float:
    """Mean of angles in degrees, in -180..180."""
    angles = np.radians([hue for hue in hues if hue == hue])
    return float(np.degrees(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean()))) if len(angles) else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"
