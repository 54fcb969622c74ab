"""Checkpoints that a kill at any moment cannot spoil: arrays first, then a pointer file renamed over the old one."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

_POINTER = "LATEST"


def save_checkpoint(folder: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """Write arrays and record (JSON) as the newest checkpoint of the folder; the one before it is then removed."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step_{record['step']:07d}.npz"
    text = np.frombuffer(json.dumps(record).encode(), np.uint8)
    partial = folder / f"{name}.partial"
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, record=text, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / name)  # a checkpoint of the same step may be the one that the pointer names
    except OSError:
        partial.unlink(missing_ok=True)  # what does not fit must not fill the disk for good; the last one stays
        raise
    pointer = folder / f"{_POINTER}.partial"
    pointer.write_text(name, encoding="utf-8")
    pointer.replace(folder / _POINTER)
    for old in folder.glob("step_*.npz"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The newest complete checkpoint as arrays and record, or None when there is none."""
    pointer = folder / _POINTER
    if not pointer.exists():
        return None
    with np.load(folder / pointer.read_text(encoding="utf-8"), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != "record"}
        return arrays, json.loads(file["record"].tobytes())
