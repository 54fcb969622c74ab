"""Reading a scan: what it is, whether we take it, its L* in strips, and a small copy for the net.

The file is read through the descriptor that the pipeline opened (read-only) and hashed: the file decoded is the file
hashed. Nothing is ever silently wrong: what is not understood is refused by name.
"""

import builtins
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from worker import profiles
from worker.classes import InputClass, classify, tint
from worker.decoders import decode, set_up_libvips
from worker.errors import ScanError, ScanTruncated, ScanUnreadable, ScanUnsupported, ScanVanished
from worker.header import Header
from worker.headers import read_header
from worker.meanings import in_words
from worker.survey import survey
from worker.whole_decoders import needs_whole_page

__all__ = ["InputClass", "Scan", "open_scan", "set_up_libvips"]

Floats = npt.NDArray[np.float32]
Source = int | str | bytes | Path

MAX_PIXELS: Final = 600_000_000
#: memory grows with a strip's width, with what is stored in one strip, and with pages that must be held whole
LARGEST_WIDTH: Final = 400_000
LARGEST_SEGMENT: Final = 2**30
WHOLE_PAGE_PIXELS: Final = 150_000_000
STRIP_ROWS: Final = 128
_PHOTOMETRICS: Final = ("minisblack", "miniswhite", "rgb", "ycbcr", "palette", "lab")
_COMPRESSIONS: Final = ("none", "lzw", "deflate", "packbits", "jpeg", "zstd", "lzma", "jpeg2000", "webp")
#: bits per channel where not all of 2 to 16 will do
_DEPTHS: Final = {"palette": (1, 2, 4, 8), "lab": (8, 16)}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """One page of a scan, open for reading. A context manager; closes only what it opened itself."""

    width: int
    height: int
    bit_depth: int  # 8 or 16
    kind: str  # "tiff", "png", "jpeg"
    page: int
    pages: int
    orientation: int  # EXIF 1..8; carried over, never applied
    x_resolution: float | None
    y_resolution: float | None
    resolution_unit: str  # "inch", "cm" or "none"
    profile: str  # description of the embedded ICC profile, or "none"
    tone: str  # how code values became L*
    input_class: InputClass
    warnings: tuple[str, ...]
    small: Floats  # L* 0..100, [h, w]
    tint: Floats  # a*, b* of the print itself at 24 even steps of L*, [24, 2]
    header: Header
    _tone: profiles.Tone
    _descriptor: int
    _owned: bool
    _choices: "_Choices"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file if it was opened by name."""
        if self._owned:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)

    @property
    def bytes(self) -> tuple[Callable[[int, int], builtins.bytes], int]:
        """The file's bytes at any place, and its size."""
        size = os.fstat(self._descriptor).st_size
        return reader(self._descriptor, size), size

    def strips(self, rows: int = STRIP_ROWS) -> Iterator[Floats]:
        """L* 0..100 of the whole page, top to bottom, `[<= rows, width]` float32; may be called again.

        Raises:
            ScanTruncated: the file ends too early.
            ScanBroken: it cannot be decoded.
        """
        for codes in decode(self._descriptor, self.header, rows):
            yield self._tone.lightness(codes)

    def all_pages(self) -> Iterator["Scan"]:
        """This page and those after it.

        Raises:
            ScanUnsupported, ScanTruncated, ScanBroken: one of them cannot be taken; the sentence says which.
        """
        yield self
        for page in range(self.page + 1, self.pages):
            try:
                yield _opened(self._descriptor, False, dataclasses.replace(self._choices, page=page), self.header)
            except ScanError as error:
                raise type(error)(f"Page {page + 1} of {self.pages}: {error}") from error

    def describe(self) -> dict[str, object]:
        """The facts of the scan, ready for JSON."""
        names = ("width", "height", "bit_depth", "kind", "page", "pages", "orientation", "x_resolution", "y_resolution",
                 "resolution_unit", "profile", "tone", "warnings")  # fmt: skip
        facts: dict[str, object] = {name: getattr(self, name) for name in names}
        return facts | {"input_class": str(self.input_class), "compression": self.header.compression}


def open_scan(
    source: Source,
    *,
    assumed_gray_trc: str = "srgb",
    max_pixels: int = MAX_PIXELS,
    force: bool = False,
    page: int = 0,
) -> Scan:
    """Open one page of a scan, decode it once, judge it, and keep a small copy.

    Args:
        source: an open read-only descriptor (its offset is left alone, it is not closed) or a path.
        assumed_gray_trc: tone curve of gray pictures without a profile, a key of `profiles.ASSUMED`.
        max_pixels: more are refused before anything is allocated.
        force: also take what has colour already, is bitonal or blank.
        page: from 0.

    Raises:
        ScanUnsupported: left alone on purpose; the message says why and what to do.
        ScanTruncated: the file ends too early.
        ScanBroken: it cannot be decoded.
        ScanVanished: no file of that name.
        ScanUnreadable: it cannot be opened.
    """
    descriptor, owned = _descriptor(source)
    try:
        return _opened(descriptor, owned, _Choices(assumed_gray_trc, max_pixels, force, page))
    except BaseException:
        if owned:
            os.close(descriptor)
        raise


@dataclasses.dataclass(frozen=True)
class _Choices:
    """What `open_scan` was asked for, kept for the other pages."""

    assumed_gray_trc: str
    max_pixels: int
    force: bool
    page: int


def _opened(descriptor: int, owned: bool, choices: _Choices, known: Header | None = None) -> Scan:
    size = os.fstat(descriptor).st_size
    header = read_header(reader(descriptor, size), size, choices.page, known)
    _refuse(header, choices.max_pixels)
    warnings = ["an alpha channel that hides nothing was left out"] if header.extra else []
    tone = _tone(header, choices.assumed_gray_trc, warnings)
    small, histogram = survey(decode(descriptor, header, STRIP_ROWS), header, tone)
    input_class = classify(small, histogram)
    if not choices.force:
        _refuse_class(input_class, header.pages)
    return Scan(
        width=header.width, height=header.height, bit_depth=16 if header.bit_depth > 8 else 8, kind=header.kind,
        page=choices.page, pages=header.pages, orientation=header.orientation, x_resolution=header.x_resolution,
        y_resolution=header.y_resolution, resolution_unit=header.resolution_unit,
        profile=profiles.describe(header.icc) if header.icc else "none", tone=tone.name, input_class=input_class,
        warnings=tuple(warnings), small=np.ascontiguousarray(small[..., 0]), tint=tint(small), header=header,
        _tone=tone, _descriptor=descriptor, _owned=owned, _choices=choices,
    )  # fmt: skip


def _descriptor(source: Source) -> tuple[int, bool]:
    if isinstance(source, int):
        return source, False
    try:
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), True
    except FileNotFoundError as error:
        raise ScanVanished(f"There is no file {os.fsdecode(source)!r}: check the name.") from error
    except OSError as error:
        why = in_words(error)
        raise ScanUnreadable(f"{os.fsdecode(source)!r} cannot be read ({why}): check its rights.") from error


@contextlib.contextmanager
def opened_descriptor(source: Source) -> Iterator[int]:
    """The descriptor itself, or one opened by name for as long as the block runs; raises as `open_scan`."""
    descriptor, owned = _descriptor(source)
    try:
        yield descriptor
    finally:
        if owned:
            os.close(descriptor)


def reader(descriptor: int, size: int) -> Callable[[int, int], bytes]:
    """Bytes of an open file at any place, without moving its offset; what lies beyond `size` is empty."""

    def read(offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset` on."""
        if not 0 <= offset < size or count <= 0:
            return b""
        try:
            return os.pread(descriptor, min(count, size - offset), offset)
        except OSError as error:
            raise ScanUnreadable(f"The file cannot be read ({in_words(error)}): check the drive or share.") from error

    return read


def _refuse(header: Header, max_pixels: int) -> None:
    """Raise for what is not read, before any decoder sees it."""
    kind, pixels = header.kind.upper(), header.width * header.height
    if pixels > max_pixels:
        raise ScanUnsupported(
            f"The {kind} claims {header.width} × {header.height} px, more than the {max_pixels:,} allowed: "
            f"raise max_megapixels if it is a real scan."
        )
    reason = _refusal(header)
    if reason:
        raise ScanUnsupported(f"The {kind} {reason}.")
    if header.ends_early:
        raise ScanTruncated(f"The {kind} ends before its pixels do: let the copy finish or copy it again.")


def _refusal(header: Header) -> str | None:
    """Why this page is not read, with the next step; None when it is."""
    convert = "convert it to 8 or 16-bit gray or RGB"
    photometric, depth = header.photometric, header.bit_depth
    whole = header.whole_page or needs_whole_page(header)
    reasons = (
        (depth == 1 and photometric != "palette", "is bitonal (1 bit), which has no tones to colour: scan it in gray"),
        (photometric not in _PHOTOMETRICS, f"is {photometric}: {convert}"),
        (header.sample_format != "uint", f"holds {header.sample_format} samples: {convert}"),
        (depth not in _DEPTHS.get(photometric, (2, 4, 8, 10, 12, 14, 16)), f"has {depth} bits per channel: {convert}"),
        (header.extra > 1, f"has {header.extra} extra channels: flatten it and {convert}"),
        (header.width > LARGEST_WIDTH, f"is {header.width} px wide, more than {LARGEST_WIDTH:,}: cut it into parts"),
        (header.largest_segment > LARGEST_SEGMENT, "stores over 1 GiB in one strip: save it in smaller strips"),
        (whole and header.width * header.height > WHOLE_PAGE_PIXELS,
         f"of {header.width} × {header.height} px needs all of it in memory: save it as TIFF with LZW or Deflate"),
        (header.channels not in (1, 2, 3, 4), f"has {header.channels} channels: {convert}"),
        (header.compression not in _COMPRESSIONS,
         f"is compressed by {header.compression}: save it with LZW, Deflate or none"),
    )  # fmt: skip
    return next((reason for holds, reason in reasons if holds), None)


def _refuse_class(input_class: InputClass, pages: int) -> None:
    """Raise for a picture that is not for us; among other pages a blank or printed one is left as it is."""
    if pages > 1 and input_class != InputClass.COLOUR:
        return
    why = {
        InputClass.COLOUR: "The picture has colours already and is left alone: save it in gray to have it coloured.",
        InputClass.BITONAL: "The picture has only two tones (print, line art): scan it in gray to have it coloured.",
        InputClass.BLANK: "The picture is blank: look at the scan, there is nothing to colour.",
    }.get(input_class)
    if why:
        raise ScanUnsupported(why)


def _tone(header: Header, trc: str, warnings: list[str]) -> profiles.Tone:
    gray = header.gray
    depth = 16 if header.bit_depth > 8 else 8
    if header.photometric == "lab":
        return profiles.LabTone(depth)
    if header.icc:
        try:
            return profiles.embedded_tone(header.icc, gray, depth)
        except profiles.ProfileUnusable as error:
            warnings.append(f"{error}; {trc if gray else 'srgb'} was assumed")
    if gray and header.gamma and not header.icc and abs(header.gamma - 1 / 2.2) > 0.02:
        return profiles.gamma_tone(header.gamma, depth)
    return profiles.assumed_tone(trc, gray, depth)
