"""Whether a checkpoint belongs to the run that is asked for: the same recipe, the same photos, the same net.

A run that goes on with something else would be neither run, and its record would say what it was not.
"""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from model.checkpoints import CheckpointError
from model.config import Preset
from model.pack import Pack

#: fields of a recipe that may change on the way: the budget, and what a shortage of memory makes smaller
_MAY_CHANGE = frozenset({"name", "minutes", "batch", "size_px"})


def photos_digest(pack: Pack, learned: np.ndarray) -> str:
    """16 hex digits for the photos of those indices: their names, order, sizes and colours.

    Times and places of files do not matter: a copy of the same photos is the same.
    """
    digest = hashlib.sha256("\n".join(pack.names[i] for i in learned).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(pack.sizes[learned], np.int64).tobytes())
    digest.update(np.ascontiguousarray(pack.histograms[learned], np.float32).tobytes())
    return digest.hexdigest()[:16]


def recipe_record(preset: Preset) -> dict[str, Any]:
    """The recipe as JSON values, for a checkpoint's record."""
    record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(preset)))
    return record


def refuse_another(
    record: dict[str, Any], run: dict[str, Any], arrays: dict[str, np.ndarray], wanted: dict[str, np.ndarray]
) -> None:
    """See that a checkpoint is of this recipe, this seed, these photos and these nets.

    Args:
        record: the checkpoint's; one of an older release knows neither recipe nor photos, and may go on.
        run: the record that the run asked for would write.
        arrays: the checkpoint's.
        wanted: arrays of the nets and optimisers as they are to go on.

    Raises:
        CheckpointError: it is not; the message names both.
    """
    if (record["preset"], record["seed"]) != (run["preset"], run["seed"]):
        raise CheckpointError(
            f"It holds a run of the preset '{record['preset']}' with seed {record['seed']}; "
            "give another output folder, or the same preset and seed to go on with it."
        )
    changed = _differences(record.get("recipe"), run["recipe"])
    problems = [f"{field} is {was} there and {now} here" for field, was, now in changed]
    if record.get("photos", run["photos"]) != run["photos"]:
        problems.append(f"it learns from other photos (digest {record['photos']} there, {run['photos']} here)")
    if not problems and (name := _misfit(arrays, wanted)):
        problems.append(f"its nets are of another architecture (array {name})")
    if problems:
        raise CheckpointError(
            f"It holds another run of the preset '{run['preset']}': {'; '.join(problems)}. Give the recipe and the "
            "photos that it was begun with to go on, --fresh to begin anew, or another output folder."
        )


def _differences(was: Any, now: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Fields that both records have and that are not equal: path, then, now. A field of one release only is none."""
    if isinstance(was, dict) and isinstance(now, dict):
        both = [name for name in now if name in was and name not in _MAY_CHANGE]
        return [found for name in both for found in _differences(was[name], now[name], f"{path}.{name}".strip("."))]
    if isinstance(was, list) and isinstance(now, list):
        if len(was) != len(now):
            return [(path, f"{len(was)} entries", len(now))]
        pairs = enumerate(zip(was, now, strict=True), start=1)
        return [found for number, pair in pairs for found in _differences(*pair, f"{path}[{number}]")]
    return [] if was is None or was == now else [(path, was, now)]


def _misfit(arrays: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> str:
    """The first array that is missing, of another shape or too many; empty where there is none."""
    for name, array in wanted.items():
        # a run that goes on in another precision finds its own loss scale
        if not name.startswith("loss_scale") and (name not in arrays or arrays[name].shape != array.shape):
            return name
    return next((name for name in arrays if name not in wanted and not name.startswith("loss_scale")), "")
