"""The net in service: one picture's L* in, its chroma at the net's resolution out; the same every time.

The whole picture is squashed to the net's square, or to the rectangle of its version's framing (`model.framing`): a few
fixed signatures for TensorFlow, no growth. Beyond 2:1 a picture is covered by overlapping windows. Running statistics,
no dropout, batches always full: the same picture gives the same numbers on the same machine.
"""

import dataclasses
import threading
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from model.config import AB_RANGE
from model.evidence import colour_share
from model.framing import SQUASH_RATIO, input_size
from model.lab import chroma_limits
from model.registry import Version, load_generator

Floats = npt.NDArray[np.float32]

#: length of a window, in widths of the picture
WINDOW_RATIO: Final = 1.5
#: beyond this ratio windows grow longer instead of more numerous, which bounds work and memory
_LONGEST_RATIO: Final = 24.0


class ChromaNotFinite(ValueError):
    """The net gave a value that is no number: its weights are damaged."""


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of the long side, as fractions of it."""

    start: float
    stop: float


class Colorizer:
    """A version of the generator, loaded once per process; safe to call from several threads."""

    def __init__(self, version: Version, *, batch: int = 1) -> None:
        """Load the weights; the net is traced by the first call or by `warm`.

        Args:
            version: which version.
            batch: squares per run of the net; runs are always full (padded), so that results do not depend on it.

        Raises:
            WeightsError: missing, changed or unfit weights.
        """
        self.version = version
        self._batch = max(batch, 2 if version.flip_average else 1)
        self._side = version.serve_size_px
        self._lock = threading.Lock()
        self._generator = load_generator(version)
        #: the traced net by height and width of its input
        self._runs: dict[tuple[int, int], Any] = {}

    @property
    def device(self) -> str:
        """Where the net runs: "cpu" or "gpu"."""
        return "gpu" if tf.config.list_logical_devices("GPU") else "cpu"

    def warm(self) -> None:
        """Run the net once and build the gamut's table, so that the first picture does not wait for either."""
        chroma_limits()
        self._predict(np.zeros((1, self._side, self._side), np.float32))

    def chroma(self, light: Floats, ratio: float | None = None) -> Floats:
        """The chroma the version gives to a picture.

        Args:
            light: its L* 0..100, `[H, W]`, any size from 1 × 1; values that are no numbers count as 50.
            ratio: the picture's width / height where `light` is a squashed copy of it; W / H by default.

        Returns:
            a*, b* of the whole picture `[h, w, 2]`, |ab| <= 110 · saturation; h and w are half the input's, longer on
            the long side for panoramas. All zero for a picture that shows nothing (`model.evidence`).

        Raises:
            ChromaNotFinite: the weights are damaged.
        """
        if light.ndim != 2 or not light.size:
            raise ValueError(f"light must be [H, W] with pixels, not {light.shape}")
        known = np.clip(np.nan_to_num(light, nan=50.0, posinf=100.0, neginf=0.0), 0.0, 100.0).astype(np.float32)
        share = colour_share(known)
        if share == 0:
            return np.zeros((self._side // 2, self._side // 2, 2), np.float32)
        # windows run along the width; the net still sees pictures upright
        whole = self._covered(known, ratio, upright=known.shape[0] <= known.shape[1])
        return whole if share == 1 else whole * np.float32(share)

    def _covered(self, light: Floats, ratio: float | None, *, upright: bool) -> Floats:
        """Windows along the long side, blended."""
        height, width = light.shape
        long, short = (width, height) if upright else (height, width)
        parts = windows(long / short)
        if len(parts) > 1 or ratio is None:
            shape = (parts[0].stop - parts[0].start) * long / short
            ratio = shape if upright else 1 / shape
        size = input_size(self._side, self.version.framing, ratio)
        planes = self._predict(np.stack([_fitted(_cut(light, part, upright), size) for part in parts]))
        if len(parts) == 1:
            return planes[0]
        if not upright:
            planes = planes.transpose(0, 2, 1, 3)
        blended = blend(planes, parts)
        return blended if upright else np.ascontiguousarray(blended.transpose(1, 0, 2))

    def _predict(self, fitted: Floats) -> Floats:
        """Inputs `[N, h, w]` -> a*, b* `[N, h/2, w/2, 2]`, flip-averaged and saturated as the version says."""
        inputs = np.concatenate([fitted, fitted[:, :, ::-1]]) if self.version.flip_average else fitted
        out = self._in_batches(inputs)
        if self.version.flip_average:
            n = len(fitted)
            out = (out[:n] + out[n:, :, ::-1]) / np.float32(2.0)
        if not np.isfinite(out).all():
            raise ChromaNotFinite(f"Version {self.version.name} gives values that are no numbers.")
        return np.ascontiguousarray(out * np.float32(AB_RANGE * self.version.saturation))

    def _in_batches(self, inputs: Floats) -> Floats:
        """Run the net on `[N, h, w]` in full batches."""
        missing = -len(inputs) % self._batch
        padded = np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), np.float32)])[..., None]
        with self._lock:
            net = self._traced(inputs.shape[1], inputs.shape[2])
            runs = [net(tf.constant(padded[i : i + self._batch])) for i in range(0, len(padded), self._batch)]
        return np.concatenate([run.numpy() for run in runs])[: len(inputs)]

    def _traced(self, height: int, width: int) -> Any:
        """The net for inputs of one size; traced once, and `model.framing` knows few sizes."""
        if (height, width) not in self._runs:
            generator = self._generator
            net = tf.function(lambda x: generator(x, training=False))
            traced = net.get_concrete_function(tf.TensorSpec((self._batch, height, width, 1), tf.float32))
            self._runs[height, width] = traced
        return self._runs[height, width]


def _fitted(light: Floats, size: tuple[int, int]) -> Floats:
    """L* `[H, W]` -> the net's input `[h, w]`, L*/50 - 1."""
    shrinks = light.shape[0] >= size[0] and light.shape[1] >= size[1]
    small = cv2.resize(light, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    scaled: Floats = small / np.float32(50.0) - np.float32(1.0)
    return scaled


def windows(ratio: float) -> list[Window]:
    """Overlapping windows over the long side of a picture.

    Args:
        ratio: long side / short side, >= 1.

    Returns:
        One window up to `SQUASH_RATIO`; beyond, windows `WINDOW_RATIO` widths long that overlap by at least a third.
    """
    if ratio <= SQUASH_RATIO:
        return [Window(0.0, 1.0)]
    length = WINDOW_RATIO / min(ratio, _LONGEST_RATIO)
    count = int(np.ceil((1.0 - length) / (length * 2 / 3))) + 1
    return [Window(float(start), float(start + length)) for start in np.linspace(0.0, 1.0 - length, count)]


def _cut(light: Floats, part: Window, upright: bool) -> Floats:
    """The window's pixels; at least one."""
    size = light.shape[1 if upright else 0]
    start = min(int(part.start * size), size - 1)
    stop = max(round(part.stop * size), start + 1)
    return light[:, start:stop] if upright else light[start:stop]


def blend(planes: Floats, parts: list[Window]) -> Floats:
    """Windows laid over each other along the width, each fading out towards its ends.

    Args:
        planes: a*, b* per window, `[N, h, w, 2]`.
        parts: where each lies.

    Returns:
        a*, b* of the whole, `[h, W, 2]` with the windows' own scale.
    """
    side = planes.shape[2]
    width = round(side / (parts[0].stop - parts[0].start))
    total = np.zeros((planes.shape[1], width, 2), np.float64)
    weight = np.zeros((1, width, 1), np.float64)
    fade = (np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) / side)[None, :, None]
    for plane, part in zip(planes, parts, strict=True):
        start = min(round(part.start * width), width - side)
        total[:, start : start + side] += plane * fade
        weight[:, start : start + side] += fade
    return (total / weight).astype(np.float32)
