"""The proof that a derivative has its master's lightness: both files read again, compared pixel by pixel, streamed."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from model import lab
from worker.decoders import Codes, decode
from worker.errors import ScanError, VerifyFailed
from worker.headers import Header, read_header
from worker.scans import MAX_PIXELS, STRIP_ROWS, Scan, Source, open_scan, opened_descriptor, reader

Floats = npt.NDArray[np.float32]

#: a derivative with less mean chroma than this has no colour (a gray picture has 0)
COLOURLESS: Final = 1.0
#: |ΔL*| that a lossless derivative may reach
LIMIT_MAX: Final = {8: 0.25, 16: 0.01}
#: and a JPEG's 99.9th percentile
LIMIT_JPEG_P99_9: Final = 2.0
_BINS_PER_UNIT: Final = 2000
_BINS: Final = 100 * _BINS_PER_UNIT + 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
    """What was written."""

    width: int
    height: int
    bit_depth: int
    kind: str
    mean_chroma: float
    #: of the pixels as handed to the encoder; what a lossless file decodes to
    pixels_sha256: str
    warnings: tuple[str, ...]

    @property
    def has_colour(self) -> bool:
        """False for a result that nobody would call coloured: never `done`."""
        return self.mean_chroma >= COLOURLESS


@dataclasses.dataclass(frozen=True, kw_only=True)
class LStarReport:
    """|ΔL*| between a master and its derivative, over all pixels."""

    max: float
    p99_9: float
    mean: float
    pixels: int
    width: int
    height: int
    bit_depth: int
    kind: str
    #: sha256 of the derivative's decoded RGB, little endian, row by row
    pixels_sha256: str

    @property
    def within(self) -> bool:
        """Whether the limit of this kind and depth is kept."""
        if self.kind == "jpeg":
            return self.p99_9 <= LIMIT_JPEG_P99_9
        return self.max <= LIMIT_MAX[self.bit_depth]

    @property
    def limit(self) -> str:
        """The limit in words."""
        if self.kind == "jpeg":
            return f"p99.9 of |ΔL*| <= {LIMIT_JPEG_P99_9:g} (JPEG)"
        return f"max |ΔL*| <= {LIMIT_MAX[self.bit_depth]:g} ({self.bit_depth} bits, lossless)"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return dataclasses.asdict(self) | {"within": self.within, "limit": self.limit}


def verify(
    master: Source | Scan, derivative: Source, *, assumed_gray_trc: str = "srgb", max_pixels: int = MAX_PIXELS
) -> LStarReport:
    """Compare a derivative with its master, both read from disk.

    Args:
        master: a scan that is open, a descriptor or a path.
        derivative: a descriptor or a path of an 8 or 16-bit sRGB TIFF, PNG or JPEG.
        assumed_gray_trc: tone curve taken for a gray master without a profile.
        max_pixels: as for `open_scan`.

    Raises:
        ScanError: a file cannot be read.
        VerifyFailed: the two differ in size, or the derivative is not RGB.
    """
    if isinstance(master, Scan):
        return _compared(master, derivative)
    with open_scan(master, assumed_gray_trc=assumed_gray_trc, max_pixels=max_pixels, force=True) as scan:
        return _compared(scan, derivative)


def check(rendered: Rendered, report: LStarReport) -> None:
    """Compare what was meant with what was read back.

    Raises:
        VerifyFailed: size, depth, kind or (lossless) pixels differ.
    """
    meant = (rendered.width, rendered.height, rendered.bit_depth, rendered.kind)
    found = (report.width, report.height, report.bit_depth, report.kind)
    if meant != found:
        raise VerifyFailed(f"The derivative was written as {meant} and reads as {found}: it will be made again.")
    if rendered.kind != "jpeg" and rendered.pixels_sha256 != report.pixels_sha256:
        raise VerifyFailed("The derivative does not read as it was written: check the disk; it will be made again.")


def _compared(scan: Scan, derivative: Source) -> LStarReport:
    with opened_descriptor(derivative) as descriptor:
        size = os.fstat(descriptor).st_size
        with _as_verify_failed():
            header = read_header(reader(descriptor, size), size)
        _same_size(scan, header)
        return _report(header, zip(scan.strips(STRIP_ROWS), _read_back(descriptor, header), strict=True))


@contextlib.contextmanager
def _as_verify_failed() -> Iterator[None]:
    """A derivative that does not read is our fault, not its master's."""
    try:
        yield
    except ScanError as error:
        raise VerifyFailed(f"The derivative does not read: {error}") from error


def _read_back(descriptor: int, header: Header) -> Iterator[Codes]:
    with _as_verify_failed():
        yield from decode(descriptor, header, STRIP_ROWS)


def _same_size(scan: Scan, header: Header) -> None:
    if (scan.width, scan.height) != (header.width, header.height):
        raise VerifyFailed(
            f"The derivative has {header.width} × {header.height} px and its master {scan.width} × {scan.height}: "
            "these two do not belong together."
        )
    if header.channels != 3 or header.bit_depth not in (8, 16):
        raise VerifyFailed("The derivative is not RGB of 8 or 16 bits: it was not made by Photochrom.")


def _report(header: Header, pairs: Iterator[tuple[Floats, Codes]]) -> LStarReport:
    digest = hashlib.sha256()
    histogram = np.zeros(_BINS, np.int64)
    largest, total = 0.0, 0.0
    for light, codes in pairs:
        difference = np.abs(lab.srgb_lightness(codes) - light)
        largest = max(largest, float(difference.max()))
        total += float(difference.sum(dtype=np.float64))
        histogram += np.bincount((difference * _BINS_PER_UNIT).astype(np.int32).ravel(), minlength=_BINS)[:_BINS]
        digest.update(codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes())
    pixels = header.width * header.height
    percentile = int(np.searchsorted(histogram.cumsum(), 0.999 * pixels)) + 1  # the bin's upper edge
    return LStarReport(
        max=round(largest, 6), p99_9=min(percentile / _BINS_PER_UNIT, round(largest, 6)), mean=round(total / pixels, 6),
        pixels=pixels, width=header.width, height=header.height, bit_depth=header.bit_depth, kind=header.kind,
        pixels_sha256=digest.hexdigest(),
    )  # fmt: skip
