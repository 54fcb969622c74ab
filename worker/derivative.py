"""From a scan and its chroma to the written derivative, strip by strip, and the proof that its L* is the master's."""

import contextlib
import dataclasses
import hashlib
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
import pyvips

from model import lab
from model.chroma import ChromaUpsampler
from model.colorizer import Colorizer
from worker import fault
from worker.errors import OutputBlocked
from worker.headers import Header
from worker.marking import Origin, packet
from worker.profiles import srgb_profile
from worker.proof import LStarReport, Rendered, check, verify
from worker.publish import output_errors
from worker.scans import Scan
from worker.writers import JpegWriter, PngWriter, Sheet, TiffWriter, Writer

__all__ = ["LStarReport", "Origin", "Policy", "Rendered", "check", "render", "verify"]

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.unsignedinteger]

#: about so many bytes of RGB per strip
_STRIP_BYTES: Final = 4 * 2**20
#: mean chroma is taken from every n-th pixel of every n-th row
_CHROMA_STEP: Final = 4
#: L*a*b* units that a temperature of 1 moves mid-tones towards yellow
_WARMTH: Final = 12.0
#: qualities tried when the one asked for moves L* beyond the limit (strong film grain)
_JPEG_LADDER: Final = (98, 100)
_JPEG_SIDE: Final = 65_500  # libjpeg's limit
_SUFFIXES: Final = {
    "tiff": (b".tif", b".tiff"), "png": (b".png",), "jpeg": (b".jpg", b".jpeg", b".jpe", b".jfif"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """How derivatives are written and coloured; recorded with each."""

    kind: str = "same"  # same, tiff, png, jpeg
    depth: str = "same"  # same, 8, 16; a JPEG always has 8
    tiff_compression: str = "deflate"  # deflate, none, lzw, zstd
    jpeg_quality: int = 95
    strength: float = 1.0  # 0 gray .. 1 the model's colours
    saturation: float = 1.0
    temperature: float = 0.0  # -1 cooler .. 1 warmer
    digital_source_type: str = "compositeWithTrainedAlgorithmicMedia"
    threads: int = 2

    def kind_for(self, scan_kind: str) -> str:
        """The kind written for a scan of that kind; TIFF where the scan's own cannot be written."""
        kind = scan_kind if self.kind == "same" else self.kind
        return kind if kind in _SUFFIXES else "tiff"

    def depth_for(self, kind: str, bit_depth: int) -> int:
        """Bits per channel written."""
        if kind == "jpeg":
            return 8
        return bit_depth if self.depth == "same" else int(self.depth)

    def extension(self, scan_kind: str, source_suffix: bytes) -> bytes:
        """The derivative's suffix with its dot: the source's own where it fits the kind written."""
        suffixes = _SUFFIXES[self.kind_for(scan_kind)]
        return source_suffix if source_suffix.lower() in suffixes else suffixes[0]


def render(scan: Scan, colorizer: Colorizer, target: int, *, policy: Policy, origin: Origin) -> Rendered:
    """Colour a scan and write its derivative.

    The net runs once, on the scan's small copy; L* passes through in strips and comes out unchanged.

    Args:
        scan: open.
        colorizer: warm.
        target: descriptor of an empty file opened for reading and writing; not synchronised here.
        policy: what to write.
        origin: for the marking.

    Raises:
        ScanTruncated, ScanBroken: the scan does not decode.
        OutputFull, OutputBlocked: the target cannot be written.
    """
    chroma = controlled(colorizer.chroma(scan.small), scan.small, policy)
    upsampler = ChromaUpsampler(chroma, scan.small, scan.width, scan.height)
    xmp = packet(origin, policy.digital_source_type)
    rendered = _written(scan, upsampler, target, policy, xmp)
    if rendered.kind != "jpeg":
        return rendered
    for quality in (quality for quality in _JPEG_LADDER if quality > policy.jpeg_quality):
        if verify(scan, target).within:
            break
        os.ftruncate(target, 0)
        os.lseek(target, 0, os.SEEK_SET)
        rendered = _written(scan, upsampler, target, dataclasses.replace(policy, jpeg_quality=quality), xmp)
        note = f"JPEG quality {quality} instead of {policy.jpeg_quality}, to keep L*"
        rendered = dataclasses.replace(rendered, warnings=(*rendered.warnings, note))
    return rendered


def _written(scan: Scan, upsampler: ChromaUpsampler, target: int, policy: Policy, xmp: bytes) -> Rendered:
    """One writing of the file, from its start."""
    kind = policy.kind_for(scan.kind)
    depth = policy.depth_for(kind, scan.bit_depth)
    rows = max(8, min(128, _STRIP_BYTES // (scan.width * 3 * depth // 8)))
    sheet = _sheet(scan, depth, rows, xmp)
    warnings = list(scan.warnings)
    if depth < scan.bit_depth:
        warnings.append(f"{scan.bit_depth} bits were written as {depth}")
    digest = hashlib.sha256()
    with _named_output_errors():
        writer = _writer(kind, target, sheet, policy)
        try:
            mean = _run(scan, upsampler, writer, sheet, digest.update, policy)
        except BaseException:
            writer.abort()
            raise
        writer.finish()
    return Rendered(
        width=scan.width, height=scan.height, bit_depth=depth, kind=kind, mean_chroma=round(mean, 3),
        pixels_sha256=digest.hexdigest(), warnings=tuple(warnings),
    )  # fmt: skip


def controlled(chroma: Floats, light: Floats, policy: Policy) -> Floats:
    """The model's chroma under the operator's controls.

    Args:
        chroma: a*, b* `[h, w, 2]`.
        light: a small L* of the same picture, any size; only its mean is used.
        policy: strength, saturation, temperature.

    Returns:
        a*, b* `[h, w, 2]`; temperature moves b* most in mid-tones, nothing in black and white.
    """
    if policy.strength == 1.0 and policy.saturation == 1.0 and policy.temperature == 0.0:
        return chroma
    tone = float(light.mean()) / 100.0
    shift = np.array([0.0, policy.temperature * _WARMTH * 4 * tone * (1 - tone)], np.float32)
    moved: Floats = (chroma * np.float32(policy.saturation) + shift) * np.float32(policy.strength)
    return moved


def _writer(kind: str, target: int, sheet: Sheet, policy: Policy) -> Writer:
    if kind == "jpeg" and max(sheet.width, sheet.height) > _JPEG_SIDE:
        raise OutputBlocked(
            f"A JPEG cannot be {sheet.width} × {sheet.height} px: set output_format to tiff for this root."
        )
    if kind == "jpeg":
        return JpegWriter(target, sheet, policy.jpeg_quality)
    return PngWriter(target, sheet) if kind == "png" else TiffWriter(target, sheet, policy.tiff_compression)


def _sheet(scan: Scan, depth: int, rows: int, xmp: bytes) -> Sheet:
    return Sheet(
        width=scan.width, height=scan.height, bit_depth=depth, rows=rows, icc=srgb_profile(), xmp=xmp,
        orientation=scan.orientation, exif=_orientation_block(scan.header), x_resolution=scan.x_resolution,
        y_resolution=scan.y_resolution, resolution_unit=scan.resolution_unit,
    )  # fmt: skip


def _orientation_block(header: Header) -> bytes:
    """A minimal EXIF block with the orientation; empty when it is upright."""
    if header.orientation == 1:
        return b""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 274, 3, 1, header.orientation, 0, 0)


def _run(
    scan: Scan,
    upsampler: ChromaUpsampler,
    writer: Writer,
    sheet: Sheet,
    hashed: Callable[[bytes], object],
    policy: Policy,
) -> float:
    """Every strip through the pool, in order; returns the mean chroma."""

    def work(top: int, light: Floats) -> tuple[Codes, bytes, float, int]:
        codes, chroma = colour_strip(upsampler, top, light, sheet.bit_depth)
        return codes, writer.encode(codes), float(chroma.sum(dtype=np.float64)), chroma.size

    total, count, top = 0.0, 0, 0
    waiting: deque[Future[tuple[Codes, bytes, float, int]]] = deque()

    def take() -> None:
        nonlocal total, count
        codes, data, chroma, number = waiting.popleft().result()
        hashed(codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes())
        writer.append(data)
        fault.point("half_written")
        total, count = total + chroma, count + number

    with ThreadPoolExecutor(policy.threads) as pool:
        try:
            for light in scan.strips(sheet.rows):
                waiting.append(pool.submit(work, top, light))
                top += len(light)
                if len(waiting) > policy.threads:
                    take()
            while waiting:
                take()
        finally:
            for future in waiting:
                future.cancel()
    return total / max(count, 1)


def colour_strip(upsampler: ChromaUpsampler, top: int, light: Floats, bit_depth: int) -> tuple[Codes, Floats]:
    """One strip in colour.

    Args:
        upsampler: of the picture.
        top: index of the strip's first row.
        light: L* `[rows, W]`.
        bit_depth: 8 or 16.

    Returns:
        sRGB codes `[rows, W, 3]`, and the chroma of a sample of its pixels.
    """
    a, b = lab.compress_chroma(light, *upsampler.rows(top, light))
    codes = lab.quantise(lab.srgb_from_lab(light, a, b), light, bit_depth)
    step = (slice(None, None, _CHROMA_STEP), slice(None, None, _CHROMA_STEP))
    return codes, np.hypot(a[step], b[step])


@contextlib.contextmanager
def _named_output_errors() -> Iterator[None]:
    """Errors of the place written to, by their meaning; the JPEG encoder's included."""
    try:
        with output_errors():
            yield
    except pyvips.Error as error:
        raise OutputBlocked(f"The derivative could not be encoded ({str(error).strip()}). Look at the disk.") from error
