"""From a finished training run to a version that can serve: weights, calibration and the run's record in one folder."""

import json
from pathlib import Path
from typing import Any

from model.registry import Version, WeightsError, publish_version


def export_run(
    output: Path, directory: Path, *, name: str, notes: dict[str, Any] | None = None, card: str = ""
) -> Version:
    """Publish the weights of a finished run.

    Args:
        output: the run's folder, as `model.train.train` left it.
        directory: the version's folder to make; it must not exist.
        name: the version's name.
        notes: further facts for the record's `training`, such as the evaluation's scores.
        card: what its CARD.md is to say.

    Raises:
        WeightsError: the run is not finished, or the version exists already.
    """
    path = output / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        recipe, calibration, saturation = record["preset"], record["calibration"], record["saturation"]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{output} holds no finished training run; let `photochrom train` end first.") from error
    discriminator = output / "discriminator.npz"
    kept = ("lambda", "adam", "seed", "minutes", "steps", "start", "photos", "packages", "device", "trained_steps")
    training = {key: record[key] for key in (*kept, "trained_s") if key in record}
    config = {field: record[field] for field in ("architecture", "serve_size_px", "flip_average")} | {
        "framing": record.get("framing", "square"),
        "training": {"preset": recipe, "calibration": calibration} | training | (notes or {}),
    }
    return publish_version(
        output / "generator.npz",
        directory,
        name=name,
        saturation=saturation,
        config=config,
        discriminator=discriminator if discriminator.exists() else None,
        card=card,
    )
