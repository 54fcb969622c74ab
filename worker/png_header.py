"""PNG: the facts from its chunks (W3C PNG, 3rd edition)."""

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from worker.header import Header, exif_facts
from worker.tiff_tags import Read


def png_header(read: Read, size: int, page: int) -> Header:
    """The header; every chunk is walked, so that a file without its end is known."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", read(16, 13))
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
        extra=int(alpha), compression="deflate", whole_page=interlace != 0, ends_early=not ended or at > size, **found,  # type: ignore[arg-type]
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
    b"eXIf": lambda data: {"exif": data, **exif_facts(data)},
    b"gAMA": lambda data: {"gamma": struct.unpack(">I", data)[0] / 100_000},
    b"tRNS": lambda data: {"transparent": True},
}
