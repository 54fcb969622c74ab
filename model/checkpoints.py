"""Checkpoints that a kill at any moment cannot spoil: arrays first, then a pointer file renamed over the old one."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

_POINTER = "LATEST"


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or is not this run's; the message says what to do."""


def save_checkpoint(folder: Path, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """Write arrays and record (JSON) as the newest checkpoint of the folder; the one before it is then removed.

    A power cut at any moment leaves this checkpoint or the one before, as a kill does.
    """
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
    _settle(folder)  # the pointer must not reach the disk before what it names
    pointer = folder / f"{_POINTER}.partial"
    with pointer.open("w", encoding="utf-8") as file:
        file.write(name)
        file.flush()
        os.fsync(file.fileno())
    pointer.replace(folder / _POINTER)
    _settle(folder)
    for old in folder.glob("step_*.npz"):
        if old.name != name:
            old.unlink()


def _settle(folder: Path) -> None:
    """Wait until the folder's renames are on the disk."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load_checkpoint(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The newest complete checkpoint as arrays and record, or None when there is none.

    Raises:
        CheckpointError: there is one, and it is torn or missing.
    """
    pointer = folder / _POINTER
    if not pointer.exists():
        return None
    try:
        path = folder / pointer.read_text(encoding="utf-8")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "record"}
            return arrays, json.loads(file["record"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"The checkpoint that {pointer} names cannot be read ({error}); begin anew with --fresh, or give another "
            "output folder."
        ) from error
