"""JPEG: the facts from its segments (ITU T.81, JFIF 1.02, Exif 2.32, ICC.1 annex B)."""

import struct

from worker.errors import ScanBroken
from worker.header import Header, exif_facts
from worker.tiff_tags import Read


def jpeg_header(read: Read, size: int, page: int) -> Header:
    """The header, up to the start of the scan data; raises ScanBroken when there is no frame."""
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
            raise ScanBroken("The JPEG has no frame header: open it in a viewer and scan or copy it again.")
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
        compression="jpeg", whole_page=marker in (0xFFC2, 0xFFC6, 0xFFCA, 0xFFCE), **found,  # type: ignore[arg-type]
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
        found |= {"exif": data[6:], **exif_facts(data[6:], resolution="x_resolution" not in found)}
    elif marker == 0xFFE1 and data.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        found["xmp"] = data[29:]
    elif marker == 0xFFE2 and data[:12] == b"ICC_PROFILE\0" and len(data) > 14:
        profile[data[12]] = data[14:]
    elif marker == 0xFFED and data.startswith(b"Photoshop 3.0\0"):
        found |= _iptc_resource(data[14:])


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
