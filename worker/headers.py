"""What a file is, from its first bytes and never from its name: kind, size, depth, colour, pages, resolution, profile.

Read before any decoder sees the file, so that absurd sizes are refused before anything is allocated, and so that what a
decoder would quietly change (a second page, 12 bits, alpha) is known.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Final

from worker.errors import ScanBroken, ScanTruncated, ScanUnsupported
from worker.header import Header
from worker.jpeg_header import jpeg_header
from worker.other_headers import jp2_header, pnm_header, webp_header
from worker.png_header import png_header
from worker.tiff_header import tiff_header
from worker.tiff_tags import Read, TagsUnreadable

__all__ = ["Header", "read_header", "sniff"]

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
_READERS: Final[Mapping[str, Callable[..., Header]]] = {
    "tiff": tiff_header, "png": png_header, "jpeg": jpeg_header, "jp2": jp2_header, "webp": webp_header,
    "pnm": pnm_header,
}  # fmt: skip


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


def read_header(read: Read, size: int, page: int = 0, known: Header | None = None) -> Header:
    """The header of one page of a file.

    Args:
        read: gives bytes of the file.
        size: of the file, bytes.
        page: which page, from 0 (TIFF; reduced-size copies and masks are not pages).
        known: of another page of the same file, which saves a walk through all of them.

    Raises:
        ScanUnsupported: another kind of file.
        ScanTruncated: the header lies beyond the end.
        ScanBroken: the header makes no sense.
    """
    kind = sniff(read)
    try:
        more = (known,) if kind == "tiff" and known is not None and known.kind == "tiff" else ()
        header = _READERS[kind](read, size, page, *more)
    except TagsUnreadable as error:
        if error.beyond_the_end:
            raise ScanTruncated(f"The file ends too early, {error}: {_NEXT_EARLY}.") from error
        raise ScanBroken(f"The TIFF cannot be read, {error}: {_NEXT_BROKEN}.") from error
    except (struct.error, IndexError) as error:
        raise ScanTruncated(f"The {kind.upper()} ends inside its header: {_NEXT_EARLY}.") from error
    if header.width < 1 or header.height < 1:
        raise ScanBroken(f"The {kind.upper()} claims {header.width} × {header.height} px: {_NEXT_BROKEN}.")
    return header
