"""The proof that a derivative has its master's lightness: both files read again, compared pixel by pixel, streamed."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from model import lab
from worker import profiles
from worker.decoders import Codes, decode
from worker.errors import MemoryExceeded, ScanError, VerifyFailed
from worker.header import Header
from worker.headers import read_header
from worker.marking import is_marked
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
    pages: int
    mean_chroma: float
    #: of the pixels as handed to the encoder; what a lossless file decodes to
    pixels_sha256: str
    #: version named in the marking
    model_version: str
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
    pages: int
    #: sha256 of the derivative's decoded RGB, little endian, row by row
    pixels_sha256: str
    #: its XMP packet
    xmp: bytes = dataclasses.field(default=b"", repr=False)

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
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "xmp"}
        return facts | {"within": self.within, "limit": self.limit}


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
        VerifyFailed: size, depth, kind, marking or (lossless) pixels differ.
    """
    meant = (rendered.width, rendered.height, rendered.bit_depth, rendered.kind, rendered.pages)
    found = (report.width, report.height, report.bit_depth, report.kind, report.pages)
    if meant != found:
        raise VerifyFailed(f"The derivative was written as {meant} and reads as {found}: it will be made again.")
    if rendered.kind != "jpeg" and rendered.pixels_sha256 != report.pixels_sha256:
        raise VerifyFailed("The derivative does not read as it was written: check the disk; it will be made again.")
    if not is_marked(report.xmp, rendered.model_version):
        raise VerifyFailed("The derivative does not say that AI made its colours: it will be made again.")


def _compared(scan: Scan, derivative: Source) -> LStarReport:
    with opened_descriptor(derivative) as descriptor:
        size = os.fstat(descriptor).st_size
        tally, first = _Tally(), None
        for page in scan.all_pages():
            with _as_verify_failed():
                header = read_header(reader(descriptor, size), size, page.page, first)
            _same_shape(page, header)
            lightness = _reading(header)
            for light, codes in zip(page.strips(STRIP_ROWS), _read_back(descriptor, header), strict=True):
                tally.add(light, codes, lightness(codes))
            first = first or header
    assert first is not None  # noqa: S101 - there is a first page
    return tally.report(first)


@contextlib.contextmanager
def _as_verify_failed() -> Iterator[None]:
    """A derivative that does not read is our fault, not its master's."""
    try:
        yield
    except MemoryExceeded:
        raise  # nothing is said about the derivative either
    except ScanError as error:
        raise VerifyFailed(f"The derivative does not read: {error}") from error


def _read_back(descriptor: int, header: Header) -> Iterator[Codes]:
    with _as_verify_failed():
        yield from decode(descriptor, header, STRIP_ROWS)


def _reading(header: Header) -> Callable[[Codes], Floats]:
    """How the derivative's codes are to be read: through its own profile."""
    if header.icc in (None, profiles.srgb_profile()):
        return lab.srgb_lightness
    try:
        return profiles.embedded_tone(header.icc or b"", gray=False, bit_depth=header.bit_depth).lightness
    except profiles.ProfileUnusable as error:
        raise VerifyFailed(f"The derivative cannot be read: {error}.") from error


def _same_shape(scan: Scan, header: Header) -> None:
    if header.pages != scan.pages:
        raise VerifyFailed(f"The derivative has {header.pages} pages and its master {scan.pages}: they are no pair.")
    if (scan.width, scan.height) != (header.width, header.height):
        raise VerifyFailed(
            f"The derivative has {header.width} × {header.height} px and its master {scan.width} × {scan.height}: "
            "these two do not belong together."
        )
    if header.channels != 3 or header.bit_depth not in (8, 16):
        raise VerifyFailed("The derivative is not RGB of 8 or 16 bits: it was not made by Photochrom.")


class _Tally:
    """|ΔL*| gathered strip by strip."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._histogram = np.zeros(_BINS, np.int64)
        self._largest, self._total, self._pixels = 0.0, 0.0, 0

    def add(self, light: Floats, codes: Codes, own: Floats) -> None:
        """A strip: the master's L* `[rows, W]`, the derivative's codes `[rows, W, 3]` and their L*."""
        difference = np.abs(own - light)
        self._largest = max(self._largest, float(difference.max()))
        self._total += float(difference.sum(dtype=np.float64))
        self._pixels += difference.size
        steps = (difference * _BINS_PER_UNIT).astype(np.int32).ravel()
        self._histogram += np.bincount(steps, minlength=_BINS)[:_BINS]
        self._digest.update(codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes())

    def report(self, header: Header) -> LStarReport:
        """The result; size, depth and marking are those of the first page."""
        bin_below = int(np.searchsorted(self._histogram.cumsum(), 0.999 * self._pixels))
        largest, mean = round(self._largest, 6), round(self._total / self._pixels, 6)
        return LStarReport(
            max=largest, p99_9=min((bin_below + 1) / _BINS_PER_UNIT, largest), mean=mean,
            pixels=self._pixels, width=header.width, height=header.height, bit_depth=header.bit_depth,
            kind=header.kind, pages=header.pages, pixels_sha256=self._digest.hexdigest(), xmp=header.xmp or b"",
        )  # fmt: skip
