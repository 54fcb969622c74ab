"""A challenger's trial: both versions on the photos of the gate, the verdict, and what a person wants to see of it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.colorizer import Colorizer
from model.gate import judge
from model.judging import before_after_sheet, judge_photos
from model.registry import Version
from model.verdict import CURATED, OPERATOR, Artefact, Judged, Thresholds, Verdict
from worker import fitness
from worker.errors import TrialImpossible
from worker.manifest import Manifest, leaks, replay_in_words
from worker.settings import Settings

SHEET_ROWS = 12


def thresholds(settings: Settings) -> Thresholds:
    """The gate's limits in force."""
    return Thresholds(
        fidelity_worse=settings.gate_fidelity_worse,
        least_gain=settings.gate_least_gain,
        slice_worse=settings.gate_slice_worse,
        slice_photos=settings.gate_slice_photos,
        holdout_photos=settings.gate_holdout_photos,
        bias=settings.gate_bias,
        chroma_low=settings.gate_chroma_low,
        chroma_high=settings.gate_chroma_high,
    )


def artefact(champion: Version, challenger: Version) -> Artefact:
    """What fresh processes find about both.

    Raises:
        TrialImpossible: the champion does not load either: it is the machine, not the challenger.
    """
    theirs = fitness.check(champion.directory)
    if theirs.problem:
        raise TrialImpossible(
            f"Not even the champion {champion.name} loads in a fresh process: {theirs.problem}. Repair the "
            "installation; the next start goes on with the trial."
        )
    ours = fitness.check(challenger.directory)
    return Artefact(
        problem=ours.problem,
        failed=tuple(ours.failed),
        size_ratio=ours.weights_bytes / max(1, theirs.weights_bytes),
        latency_ratio=ours.latency_s / max(1e-6, theirs.latency_s),
        same_architecture=ours.architecture == theirs.architecture,
    )


def hold(
    settings: Settings,
    manifest: Manifest,
    champion: Colorizer,
    challenger: Version,
    alive: Callable[[float], None],
) -> dict[str, Any]:
    """Judge a challenger; writes `verdict.json`, `report.md` and `before-after.png` into the run's folder.

    Args:
        settings: limits, and the operator's evaluation set.
        manifest: of the run; its hold-out is judged on.
        champion: loaded.
        challenger: as published, not loaded.
        alive: called while it goes on, with the share that is done.

    Returns:
        The verdict as JSON values.

    Raises:
        PhotosError: a folder that the settings name holds no photos.
        TrialImpossible: nothing can be judged on this machine now.
    """
    sound = artefact(champion.version, challenger)
    rows: tuple[list[Judged], list[Judged]] = ([], [])
    folders = [(manifest.holdout, CURATED)] if manifest.holdout.is_dir() else []
    folders += [(Path(settings.evaluation_photos), OPERATOR)] if settings.evaluation_photos else []
    if not sound.problem:
        other = Colorizer(challenger)
        for number, (folder, collection) in enumerate(folders):
            for side, more in zip(rows, judge_photos(
                folder, collection, champion.chroma, other.chroma,
                lambda done, total, number=number: alive((number + done / total) / len(folders)),  # type: ignore[misc]
            ), strict=True):  # fmt: skip
                side.extend(more)
        if folders:
            before_after_sheet(manifest.folder / "before-after.png", [folder for folder, _ in folders],
                               champion.chroma, other.chroma, SHEET_ROWS // len(folders))  # fmt: skip
    verdict = judge(*rows, sound, leaks(manifest, settings.evaluation_photos), thresholds(settings))
    told = _as_dict(verdict, manifest, champion.version, challenger) | {"artefact": dataclasses.asdict(sound)}
    told["thresholds"] = dataclasses.asdict(thresholds(settings))
    (manifest.folder / "verdict.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (manifest.folder / "report.md").write_text(report(told), encoding="utf-8")
    return told


def _as_dict(verdict: Verdict, manifest: Manifest, champion: Version, challenger: Version) -> dict[str, Any]:
    return {
        "outcome": str(verdict.outcome),
        "reasons": list(verdict.reasons),
        "champion": {"version": champion.name, "weights_sha256": champion.weights_sha256},
        "challenger": {"version": challenger.name, "weights_sha256": challenger.weights_sha256},
        "manifest_sha256": manifest.sha256,
        "photos": {use: len(manifest.used(use)) for use in ("train", "holdout")},
        "replay": {
            "kind": manifest.record["replay"]["kind"],
            "photos": len(manifest.record["replay"]["photos"]),
            "matched": manifest.record["replay"].get("matched", 0),
            "says": replay_in_words(manifest.record["replay"]),
        },
        "evaluation": manifest.record["evaluation"],
        "checks": [dataclasses.asdict(check) for check in verdict.checks],
        "reported_slices": {name: list(told) for name, told in verdict.reported_slices.items()},
    }


def report(told: dict[str, Any]) -> str:
    """A verdict as a page of Markdown."""
    lines = [
        f"# {told['challenger']['version']}: {told['outcome'].replace('_', ' ')}",
        "",
        *(f"- {reason}" for reason in told["reasons"]),
        *([""] if told["reasons"] else []),
        f"Challenger `{told['challenger']['version']}` ({told['challenger']['weights_sha256'][:16]}…) against champion "
        f"`{told['champion']['version']}` ({told['champion']['weights_sha256'][:16]}…).",
        f"Learned from {told['photos']['train']} curated photos and {told['replay']['photos']} of replay "
        f"({told['replay']['says']}); judged on {told['photos']['holdout']} held-out curated photos and "
        f"{told['evaluation']['photos']} of the operator's. Manifest {told['manifest_sha256'][:16]}….",
        "",
        "| point | check | | champion | challenger | photos |",
        "|---|---|---|---|---|---|",
    ]
    for check in told["checks"]:
        figures = [_figure(check[side]) for side in ("champion", "challenger")]
        mark = "ok" if check["ok"] else "**no**"
        lines.append(
            f"| {check['point']} | {check['says']} | {mark} | {' | '.join(figures)} | {check['photos'] or ''} |"
        )
    for name, (photos, change) in sorted(told["reported_slices"].items()):
        lines.append(f"| 4 | Slice {name} is too small to decide: ab-L1 {100 * change:+.1f} % | | | | {photos} |")
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
