"""A net's weights as a file: fp16 arrays w0, w1, ... in the order of `model.weights`, npz without pickle."""

import os
import zipfile
from pathlib import Path

import keras
import numpy as np


class WeightsFileError(ValueError):
    """The file is no set of weights for this net."""


def write_weights(net: keras.Model, path: Path) -> None:
    """Write the net's weights as fp16, complete or not at all.

    Raises:
        WeightsFileError: a weight is no number or too large for fp16.
    """
    arrays = {f"w{i}": np.asarray(w).astype(np.float16) for i, w in enumerate(net.weights)}
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise WeightsFileError(f"{path.name} is not written: a weight is not a number that fp16 can hold.")
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_arrays(path: Path) -> list[np.ndarray]:
    """The file's arrays as float32, in the order of a net's weights.

    Raises:
        WeightsFileError: the file is missing or broken.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[f"w{i}"].astype(np.float32) for i in range(len(file.files))]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsFileError(f"{path} cannot be read as weights ({error}).") from error


def blend_weights(net: keras.Model, first: Path, second: Path, share: float) -> None:
    """Put (1 - share)·first + share·second into the net.

    Two nets of which one was trained on from the other lie in one valley of the loss; the mean of their weights often
    generalises better than either (Wortsman et al. 2022, "Model soups" and "Robust fine-tuning").

    Raises:
        WeightsFileError: as `read_weights` raises it.
    """
    read_weights(net, first)
    ours = net.get_weights()
    read_weights(net, second)
    net.set_weights([(1 - share) * a + share * b for a, b in zip(ours, net.get_weights(), strict=True)])


def read_weights(net: keras.Model, path: Path) -> None:
    """Put the file's weights into the net.

    Raises:
        WeightsFileError: the file is missing or broken, or its arrays are not those of this net.
    """
    arrays = read_arrays(path)
    if [a.shape for a in arrays] != [tuple(w.shape) for w in net.weights]:
        raise WeightsFileError(f"{path} holds weights of another architecture than '{net.name}'.")
    if not all(np.isfinite(a).all() for a in arrays):
        raise WeightsFileError(f"{path} holds weights that are no numbers.")
    net.set_weights(arrays)
