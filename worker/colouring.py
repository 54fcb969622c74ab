"""One page through the colours, strip by strip in a small pool: L* in, encoded RGB out, in order."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from model import lab
from model.chroma import ChromaUpsampler
from worker import fault
from worker.output_space import OutputSpace
from worker.policy import Policy
from worker.writers import Codes, Writer

Floats = npt.NDArray[np.float32]

#: mean chroma is taken from every n-th pixel of every n-th row
_CHROMA_STEP: Final = 4
#: L*a*b* units that a temperature of 1 moves mid-tones towards yellow
_WARMTH: Final = 12.0


@dataclasses.dataclass(frozen=True)
class _Strip:
    """A strip on its way out."""

    codes: Codes
    encoded: bytes
    chroma: float
    sampled: int


def controlled(chroma: Floats, light: Floats, policy: Policy) -> Floats:
    """The model's chroma under the operator's controls.

    Args:
        chroma: a*, b* `[h, w, 2]`.
        light: a small L* of the same picture, any size; only its mean is used.
        policy: strength, saturation, temperature.

    Returns:
        a*, b* `[h, w, 2]`; temperature moves b* most in pictures of middle brightness, not at all in black or white.
    """
    if policy.strength == 1.0 and policy.saturation == 1.0 and policy.temperature == 0.0:
        return chroma
    tone = float(light.mean()) / 100.0
    shift = np.array([0.0, policy.temperature * _WARMTH * 4 * tone * (1 - tone)], np.float32)
    moved: Floats = (chroma * np.float32(policy.saturation) + shift) * np.float32(policy.strength)
    return moved


def colour_strip(
    upsampler: ChromaUpsampler, top: int, light: Floats, bit_depth: int, space: OutputSpace, tint: Floats | None = None
) -> tuple[Codes, Floats]:
    """One strip in colour.

    Args:
        upsampler: of the page.
        top: index of the strip's first row.
        light: L* `[rows, W]`.
        bit_depth: 8 or 16.
        space: to write in.
        tint: a*, b* at even steps of L*, `[n, 2]`, added to the colours.

    Returns:
        Codes `[rows, W, 3]`, and the model's chroma in a sample of its pixels (a print's tint is no colour).
    """
    a, b = upsampler.rows(top, light)
    sample = (slice(None, None, _CHROMA_STEP), slice(None, None, _CHROMA_STEP))
    chroma = np.hypot(a[sample], b[sample])
    if tint is not None:
        steps = (np.arange(len(tint)) + 0.5) * (100 / len(tint))
        a += np.interp(light, steps, tint[:, 0]).astype(np.float32)
        b += np.interp(light, steps, tint[:, 1]).astype(np.float32)
    a, b = lab.compress_chroma(light, a, b, space.limits)
    return space.codes(light, a, b, bit_depth), chroma


def colour_page(
    strips: Iterator[Floats],
    upsampler: ChromaUpsampler,
    writer: Writer,
    *,
    bit_depth: int,
    threads: int,
    hashed: Callable[[bytes], object],
    space: OutputSpace,
    tint: Floats | None = None,
) -> float:
    """Colour, encode and append every strip of a page; at most `threads + 1` are in memory.

    Args:
        strips: L* `[rows, W]`, top to bottom.
        upsampler: of the page.
        writer: at the start of the page.
        bit_depth: 8 or 16.
        threads: that work on strips.
        hashed: gets the pixels in order, little endian.
        space: to write in.
        tint: as for `colour_strip`.

    Returns:
        The mean chroma.
    """

    def work(top: int, light: Floats) -> _Strip:
        """One strip in one of the threads: coloured, encoded, its chroma added up."""
        codes, chroma = colour_strip(upsampler, top, light, bit_depth, space, tint)
        return _Strip(codes, writer.encode(codes), float(chroma.sum(dtype=np.float64)), chroma.size)

    total, count = 0.0, 0
    with ThreadPoolExecutor(threads, thread_name_prefix="strip") as pool:
        for strip in _in_order(pool, work, strips, threads):
            hashed(strip.codes.astype(strip.codes.dtype.newbyteorder("<"), copy=False).tobytes())
            writer.append(strip.encoded)
            fault.point("half_written")
            total, count = total + strip.chroma, count + strip.sampled
    return total / max(count, 1)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[int, Floats], _Strip], strips: Iterator[Floats], ahead: int
) -> Iterator[_Strip]:
    """Results in the order of their strips, only `ahead` of them under way."""
    waiting: deque[Future[_Strip]] = deque()
    top = 0
    try:
        for light in strips:
            waiting.append(pool.submit(work, top, light))
            top += len(light)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
