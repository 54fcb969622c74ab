"""What a file is, from its first bytes and never from its name: kind, size, depth, colour, pages, resolution, profile.

Read before any decoder sees the file, so that absurd sizes are refused before anything is allocated, and so that what a
decoder would quietly change (a second page, 12 bits, alpha) is known.
"""

import dataclasses
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from worker.errors import ScanBroken, ScanTruncated, ScanUnsupported
from worker.tiff_tags import Directory, Read, TagsUnreadable, directories

_NEXT_BROKEN: Final = "open it in a viewer and scan or copy it again"
_NEXT_EARLY: Final = "let the copy finish or copy it again"

#: first bytes -> kind
_MAGIC: Final[Mapping[bytes, str]] = {
    b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff",
    b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg",
    b"\0\0\0\x0cjP  ": "jp2", b"\xff\x4f\xff\x51": "jp2", b"P5": "pnm", b"P6": "pnm",
}  # fmt: skip

#: first bytes of what is known and left alone
_OTHERS: Final[Mapping[bytes, str]] = {
    b"GIF8": "a GIF", b"%PDF": "a PDF", b"8BPS": "a Photoshop document", b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL ": "a JPEG XL", b"P1": "a bitonal PNM", b"P4": "a bitonal PNM", b"PK\x03\x04": "an archive",
    b"BM": "a BMP", b"\x1f\x8b": "a compressed file", b"SIMPLE": "a FITS image", b"AT&TFORM": "a DjVu document",
}  # fmt: skip

PHOTOMETRIC: Final[Mapping[int, str]] = {
    0: "miniswhite", 1: "minisblack", 2: "rgb", 3: "palette", 4: "mask", 5: "cmyk", 6: "ycbcr", 8: "lab", 9: "lab",
    10: "lab", 32803: "raw", 32844: "log", 32845: "log", 34892: "raw",
}  # fmt: skip
COMPRESSION: Final[Mapping[int, str]] = {
    1: "none", 2: "ccitt", 3: "ccitt", 4: "ccitt", 5: "lzw", 6: "old-jpeg", 7: "jpeg", 8: "deflate", 32773: "packbits",
    32809: "thunderscan", 32946: "deflate", 34676: "sgilog", 34677: "sgilog", 34712: "jpeg2000", 34925: "lzma",
    50000: "zstd", 50001: "webp", 50002: "jxl",
}  # fmt: skip
_SAMPLE_FORMAT: Final[Mapping[int, str]] = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex", 6: "complex"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """The facts of one page; what a kind cannot say has its default."""

    kind: str
    width: int
    height: int
    bit_depth: int
    photometric: str = "minisblack"
    channels: int = 1  # colour channels and extra samples together
    extra: int = 0  # of those: alpha or unknown
    sample_format: str = "uint"
    compression: str = "none"
    planar: bool = False
    tiled: bool = False
    pages: int = 1
    total_pixels: int = 0  # of all pages
    directory_index: int = 0  # of the page, among all directories of a TIFF
    orientation: int = 1
    x_resolution: float | None = None
    y_resolution: float | None = None
    resolution_unit: str = "none"
    icc: bytes | None = None
    gamma: float | None = None  # PNG gAMA: code = light ^ gamma
    ends_early: bool = False
    big_endian: bool = False
    directory: Directory | None = None
    exif: bytes | None = None  # a TIFF block
    xmp: bytes | None = None
    iptc: bytes | None = None  # IIM records

    @property
    def gray(self) -> bool:
        """One tone per pixel, besides alpha."""
        return self.photometric in ("minisblack", "miniswhite")


def sniff(read: Read) -> str:
    """The kind of the file.

    Returns:
        "tiff", "png", "jpeg", "jp2", "webp" or "pnm".

    Raises:
        ScanTruncated: it is empty, or holds only zeros so far.
        ScanUnsupported: it is something else, by name where known.
    """
    head = read(0, 4096)
    if not head.strip(b"\0"):
        what = "is empty" if not head else "holds only zeros"
        raise ScanTruncated(f"The file {what}: {_NEXT_EARLY}.")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    name = next((what for magic, what in _OTHERS.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        name = "an ISO media file (HEIF, AVIF, film)"
    what = f"is {name}" if name else "is no picture that Photochrom knows"
    raise ScanUnsupported(f"The file {what}: convert it to TIFF, PNG or JPEG if it is a scan.")


def read_header(read: Read, size: int, page: int = 0) -> Header:
    """The header of one page of a file.

    Args:
        read: gives bytes of the file.
        size: of the file, bytes.
        page: which page, from 0 (TIFF; reduced-size copies and masks are not pages).

    Raises:
        ScanUnsupported: another kind of file.
        ScanTruncated: the header lies beyond the end.
        ScanBroken: the header makes no sense.
    """
    kind = sniff(read)
    try:
        header = {"tiff": _tiff, "png": _png, "jpeg": _jpeg}.get(kind, _other)(read, size, page)
    except TagsUnreadable as error:
        if error.beyond_the_end:
            raise ScanTruncated(f"The file ends too early, {error}: {_NEXT_EARLY}.") from error
        raise ScanBroken(f"The TIFF cannot be read, {error}: {_NEXT_BROKEN}.") from error
    except (struct.error, IndexError) as error:
        raise ScanTruncated(f"The {kind.upper()} ends inside its header: {_NEXT_EARLY}.") from error
    if header.width < 1 or header.height < 1:
        raise ScanBroken(f"The {kind.upper()} claims {header.width} × {header.height} px: {_NEXT_BROKEN}.")
    return header


def _other(read: Read, size: int, page: int) -> Header:
    raise ScanUnsupported(
        f"This file is {sniff(read).upper()}, which is not read yet: convert it to TIFF, PNG or JPEG."
    )


def _tiff(read: Read, size: int, page: int) -> Header:
    pages = [(i, d) for i, d in enumerate(directories(read, size)) if not d.number(254, 0) & 0b101]
    if page >= len(pages):
        raise TagsUnreadable(f"it has {len(pages)} pages and no page {page + 1}")
    index, directory = pages[page]
    if not {256, 257} <= set(directory.tags) or not {273, 324} & set(directory.tags):
        raise TagsUnreadable("it lacks its size or the place of its pixels")
    depths = directory.numbers(258) or (1,)
    if len(set(depths)) > 1:
        raise ScanUnsupported("The TIFF's channels differ in depth: convert it to 8 or 16 bits per channel.")
    resolution = {n: directory.ratio(n) for n in (282, 283)}
    compression = directory.number(259, 1)
    return Header(
        kind="tiff", width=directory.number(256, 0), height=directory.number(257, 0), bit_depth=depths[0],
        photometric=PHOTOMETRIC.get(directory.number(262, -1), "unknown"),
        channels=directory.number(277, 1), extra=len(directory.numbers(338)),
        sample_format=_SAMPLE_FORMAT.get(directory.number(339, 1), "unknown"),
        compression=COMPRESSION.get(compression, f"number {compression}"),
        planar=directory.number(284, 1) == 2 and directory.number(277, 1) > 1, tiled=324 in directory.tags,
        pages=len(pages), directory_index=index,
        total_pixels=sum(d.number(256, 0) * d.number(257, 0) for _, d in pages),
        orientation=_orientation(directory),
        x_resolution=resolution[282], y_resolution=resolution[283],
        resolution_unit={1: "none", 3: "cm"}.get(directory.number(296, 2), "inch") if resolution[282] else "none",
        icc=directory.data(34675), big_endian=directory.order == ">", directory=directory,
        xmp=directory.data(700), iptc=directory.data(33723), ends_early=_pixels_beyond(directory, size),
    )  # fmt: skip


def _pixels_beyond(directory: Directory, size: int) -> bool:
    """Whether a strip or tile of the page lies beyond the end of the file."""
    tiles = 324 in directory.tags
    offsets, counts = directory.table(324 if tiles else 273), directory.table(325 if tiles else 279)
    if not len(counts):
        return bool(len(offsets)) and bool(offsets.max() >= size)
    n = min(len(offsets), len(counts))
    ends = offsets[:n] + counts[:n]
    return bool(n) and bool(((ends > size) | (ends < 0) | (offsets[:n] < 0)).any())


def _orientation(directory: Directory) -> int:
    value = directory.number(274, 1)
    return value if 1 <= value <= 8 else 1


def _png(read: Read, size: int, page: int) -> Header:
    width, height, depth, colour = struct.unpack(">IIBB", read(16, 10))
    photometric, channels = {0: ("minisblack", 1), 2: ("rgb", 3), 3: ("palette", 1), 4: ("minisblack", 2)}.get(
        colour, ("rgb", 4)
    )
    found: dict[str, object] = {}
    at, ended = 8, False
    while at + 8 <= size and not ended:
        length, name = struct.unpack(">I4s", read(at, 8))
        if name in _PNG_CHUNKS and length < 2**26:
            found |= _PNG_CHUNKS[name](read(at + 8, length))
        at, ended = at + 12 + length, name == b"IEND"
    alpha = channels in (2, 4) or "transparent" in found
    found.pop("transparent", None)
    return Header(
        kind="png", width=width, height=height, bit_depth=depth, photometric=photometric, channels=channels,
        extra=int(alpha), compression="deflate", ends_early=not ended or at > size, **found,  # type: ignore[arg-type]
    )  # fmt: skip


def _png_profile(data: bytes) -> dict[str, object]:
    try:
        # a profile of more than 16 MiB is none
        return {"icc": zlib.decompressobj().decompress(data.split(b"\0", 1)[1][1:], 2**24)}
    except (zlib.error, IndexError):
        return {}


def _png_text(data: bytes) -> dict[str, object]:
    keyword, _, rest = data.partition(b"\0")
    if keyword != b"XML:com.adobe.xmp" or rest[:1] != b"\0":  # a packet is never compressed (XMP part 3)
        return {}
    return {"xmp": rest[2:].split(b"\0", 2)[-1]}


def _png_resolution(data: bytes) -> dict[str, object]:
    x, y, unit = struct.unpack(">IIB", data)
    if unit != 1:
        return {}
    return {"x_resolution": x * 0.0254, "y_resolution": y * 0.0254, "resolution_unit": "inch"}


_PNG_CHUNKS: Final[Mapping[bytes, Callable[[bytes], dict[str, object]]]] = {
    b"iCCP": _png_profile,
    b"iTXt": _png_text,
    b"pHYs": _png_resolution,
    b"eXIf": lambda data: {"exif": data, **_exif_facts(data)},
    b"gAMA": lambda data: {"gamma": struct.unpack(">I", data)[0] / 100_000},
    b"tRNS": lambda data: {"transparent": True},
}


def _exif_facts(block: bytes) -> dict[str, object]:
    """Orientation from an EXIF block; nothing when it cannot be read (a viewer ignores it as well)."""
    try:
        first = next(directories(lambda at, count: block[at : at + count], len(block)), None)
    except TagsUnreadable:
        return {}
    return {"orientation": _orientation(first)} if first else {}


def _jpeg(read: Read, size: int, page: int) -> Header:
    found: dict[str, object] = {}
    profile: dict[int, bytes] = {}
    at = 2
    while True:
        marker = struct.unpack(">H", read(at, 2))[0]
        if marker == 0xFFFF:  # fill byte
            at += 1
            continue
        if marker < 0xFF00:  # stray bytes: decoders look for the next marker as well
            at += 1
            continue
        if marker < 0xFFC0 or marker in (0xFFD9, 0xFFDA):
            raise ScanBroken(f"The JPEG has no frame header: {_NEXT_BROKEN}.")
        length = struct.unpack(">H", read(at + 2, 2))[0]
        data = read(at + 4, max(length - 2, 0))
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            break
        _jpeg_segment(marker, data, found, profile)
        at += 2 + length
    depth, height, width, channels = struct.unpack(">BHHB", data[:6])
    _jpeg_late_profile(read, at + 2 + length, profile)
    if profile:
        found["icc"] = b"".join(profile[k] for k in sorted(profile))
    photometric = {1: "minisblack", 3: "rgb", 4: "cmyk"}.get(channels, "unknown")
    return Header(
        kind="jpeg", width=width, height=height, bit_depth=depth, photometric=photometric, channels=channels,
        compression="jpeg", **found,  # type: ignore[arg-type]
    )  # fmt: skip


def _jpeg_late_profile(read: Read, at: int, profile: dict[int, bytes]) -> None:
    """Profiles that stand after the frame header, which the standard allows."""
    while True:
        head = read(at, 4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xDA, 0xD9):
            return
        marker, length = struct.unpack(">HH", head)
        _jpeg_segment(marker, read(at + 4, max(length - 2, 0)), {}, profile)
        at += 2 + length


def _jpeg_segment(marker: int, data: bytes, found: dict[str, object], profile: dict[int, bytes]) -> None:
    """One APPn segment: JFIF density, EXIF, XMP, IPTC in 8BIM, a piece of the ICC profile."""
    if marker == 0xFFE0 and data[:5] == b"JFIF\0" and len(data) >= 12:
        unit, x, y = struct.unpack(">BHH", data[7:12])
        if unit in (1, 2) and x and y:
            found |= {"x_resolution": float(x), "y_resolution": float(y), "resolution_unit": ("inch", "cm")[unit - 1]}
    elif marker == 0xFFE1 and data[:6] == b"Exif\0\0":
        found |= {"exif": data[6:], **_exif_facts(data[6:]), **_exif_resolution(data[6:], found)}
    elif marker == 0xFFE1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        found["xmp"] = data[29:]
    elif marker == 0xFFE2 and data[:12] == b"ICC_PROFILE\0" and len(data) > 14:
        profile[data[12]] = data[14:]
    elif marker == 0xFFED and data.startswith(b"Photoshop 3.0\0"):
        found |= _iptc_resource(data[14:])


def _exif_resolution(block: bytes, found: Mapping[str, object]) -> dict[str, object]:
    """Resolution from EXIF where JFIF gave none."""
    if "x_resolution" in found:
        return {}
    try:
        first = next(directories(lambda at, count: block[at : at + count], len(block)), None)
    except TagsUnreadable:
        return {}
    x, y = (first.ratio(282), first.ratio(283)) if first else (None, None)
    if not first or not x or not y:
        return {}
    return {
        "x_resolution": x,
        "y_resolution": y,
        "resolution_unit": {1: "none", 3: "cm"}.get(first.number(296, 2), "inch"),
    }


def _iptc_resource(block: bytes) -> dict[str, object]:
    """The IIM records (resource 0x0404) of a Photoshop image resource block."""
    at = 0
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        (number,) = struct.unpack(">H", block[at + 4 : at + 6])
        name = 1 + block[at + 6]
        at += 6 + name + name % 2
        (length,) = struct.unpack(">I", block[at : at + 4])
        if number == 0x0404:
            return {"iptc": block[at + 4 : at + 4 + length]}
        at += 4 + length + length % 2
    return {}
