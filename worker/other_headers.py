"""JPEG 2000, WebP and PNM: the facts from their first bytes (ISO 15444-1 annexes A, I; WebP container; Netpbm)."""

import re
import struct

from worker.errors import ScanBroken, ScanUnsupported
from worker.header import Header, exif_facts
from worker.tiff_tags import Read

_NEXT_BROKEN = "open it in a viewer and scan or copy it again"
#: JPEG 2000 keeps its boxes in front of the code stream; more than this is not looked at
_JP2_HEAD_BYTES = 1 << 22


def jp2_header(read: Read, size: int, page: int) -> Header:
    """The header of a JP2 file or a bare code stream.

    Raises:
        ScanBroken: no size marker, or impossible sizes.
        ScanUnsupported: parts of different size or depth, a palette.
    """
    head = read(0, _JP2_HEAD_BYTES)
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ScanBroken(f"The JPEG 2000 has no code stream: {_NEXT_BROKEN}.")
    x1, y1, x0, y0 = struct.unpack(">4I", head[start + 8 : start + 24])
    (count,) = struct.unpack(">H", head[start + 40 : start + 42])
    parts = [struct.unpack(">3B", head[start + 42 + 3 * i : start + 45 + 3 * i]) for i in range(min(count, 16))]
    if not parts or x1 <= x0 or y1 <= y0:
        raise ScanBroken(f"The JPEG 2000 claims {x1 - x0} × {y1 - y0} px: {_NEXT_BROKEN}.")
    if len(set(parts)) > 1 or parts[0][1:] != (1, 1) or b"pclr" in head[:start]:
        raise ScanUnsupported("The JPEG 2000 has a palette or parts of different size: convert it to TIFF.")
    bits = (parts[0][0] & 0x7F) + 1
    return Header(
        kind="jp2", width=x1 - x0, height=y1 - y0, bit_depth=bits, channels=count, extra=int(count in (2, 4)),
        photometric="minisblack" if count < 3 else "rgb", sample_format="int" if parts[0][0] & 0x80 else "uint",
        compression="jpeg2000", whole_page=True, icc=_jp2_profile(head[:start]), **_jp2_resolution(head[:start]),  # type: ignore[arg-type]
    )  # fmt: skip


def _jp2_profile(boxes: bytes) -> bytes | None:
    """The restricted or full ICC profile of the colour box."""
    at = boxes.find(b"colr")
    if at < 4 or boxes[at + 4 : at + 5] not in (b"\2", b"\3"):
        return None
    (length,) = struct.unpack(">I", boxes[at - 4 : at])
    return boxes[at + 7 : at - 4 + length]


def _jp2_resolution(boxes: bytes) -> dict[str, object]:
    """Capture (or else display) resolution, which JP2 gives per metre."""
    at = max(boxes.find(b"resc"), boxes.find(b"resd"))
    if at < 0 or len(boxes) < at + 14:
        return {}
    y, y_below, x, x_below, y_power, x_power = struct.unpack(">4H2b", boxes[at + 4 : at + 14])
    if not x or not y or not x_below or not y_below:
        return {}
    x_per_cm, y_per_cm = x / x_below * 10.0**x_power / 100, y / y_below * 10.0**y_power / 100
    return {"x_resolution": x_per_cm, "y_resolution": y_per_cm, "resolution_unit": "cm"}


def webp_header(read: Read, size: int, page: int) -> Header:
    """The header of a still WebP; raises ScanUnsupported for a film, ScanBroken."""
    head = read(0, 64)
    form = head[12:16]
    alpha = False
    found: dict[str, object] = {}
    if form == b"VP8X":
        flags = head[20]
        if flags & 0x02:
            raise ScanUnsupported("The WebP is an animation: save one picture of it.")
        width, height = (int.from_bytes(head[a : a + 3], "little") + 1 for a in (24, 27))
        alpha = bool(flags & 0x10)
        found = _webp_chunks(read, size)
    elif form == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    elif form == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack("<HH", head[26:30]))
    else:
        raise ScanBroken(f"The WebP holds no picture: {_NEXT_BROKEN}.")
    (length,) = struct.unpack("<I", head[4:8])
    return Header(
        kind="webp", width=width, height=height, bit_depth=8, photometric="rgb", channels=4 if alpha else 3,
        extra=int(alpha), compression="webp", whole_page=True, ends_early=length + 8 > size, **found,  # type: ignore[arg-type]
    )  # fmt: skip


def _webp_chunks(read: Read, size: int) -> dict[str, object]:
    found: dict[str, object] = {}
    at = 12
    while at + 8 <= size:
        name, length = struct.unpack("<4sI", read(at, 8))
        if name == b"ICCP" and length < 2**24:
            found["icc"] = read(at + 8, length)
        elif name == b"XMP " and length < 2**24:
            found["xmp"] = read(at + 8, length)
        elif name == b"EXIF" and length < 2**24:
            block = read(at + 8, length).removeprefix(b"Exif\0\0")
            found |= {"exif": block, **exif_facts(block, resolution=True)}
        at += 8 + length + length % 2
    return found


def pnm_header(read: Read, size: int, page: int) -> Header:
    """The header of a binary PGM or PPM; its pixels start at `directory_index`.

    Raises:
        ScanBroken: numbers are missing or impossible.
    """
    head = read(0, 4096)
    match = re.match(rb"P([56])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s", head)
    if match is None:
        raise ScanBroken(f"The PNM has no complete header: {_NEXT_BROKEN}.")
    form, width, height, largest = (int(number) for number in match.groups())
    if largest not in (255, 65535):
        raise ScanUnsupported(f"The PNM counts to {largest}: convert it to 255 or 65535.")
    channels, sample = (1 if form == 5 else 3), 1 if largest == 255 else 2
    return Header(
        kind="pnm", width=width, height=height, bit_depth=8 * sample, channels=channels,
        photometric="minisblack" if form == 5 else "rgb", directory_index=match.end(),
        ends_early=match.end() + width * height * channels * sample > size,
    )  # fmt: skip
