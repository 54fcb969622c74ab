"""Decoders that hold a whole page: what libvips' wheel cannot read, by content.

JPEG 2000 by OpenJPEG (imagecodecs); TIFF compressed by ZSTD or LZMA, planar tiles, 2, 4 and 12 bits, palettes and Lab
by tifffile. PNM is read straight from the file. Codes come out as 8 or 16 full-range bits, 0 black.
"""

import os
from typing import BinaryIO, Final

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from worker.errors import ScanBroken, ScanTruncated
from worker.header import Header
from worker.meanings import out_of_memory, wants_memory

Codes = npt.NDArray[np.unsignedinteger]

#: what these libraries raise on damaged files
DECODER_ERRORS: Final = (
    ValueError, RuntimeError, TypeError, KeyError, IndexError, OverflowError, NotImplementedError, ZeroDivisionError,
    AttributeError, AssertionError, tifffile.TiffFileError,
)  # fmt: skip


def needs_whole_page(header: Header) -> bool:
    """Whether a page goes to these decoders instead of libvips."""
    if header.kind != "tiff":
        return header.kind in ("jp2", "pnm")
    return (
        header.compression in ("zstd", "lzma")
        or (header.planar and header.tiled)
        or header.bit_depth not in (8, 16)
        or header.photometric in ("palette", "lab")
    )


def decode_whole(descriptor: int, header: Header) -> Codes:
    """All code values of a page.

    Args:
        descriptor: of the file, with an offset of its own.
        header: of the page.

    Returns:
        `[height, width, bands]`, uint8 or uint16.

    Raises:
        ScanBroken: it cannot be decoded, or decodes to another size.
        ScanTruncated: its end is missing.
        MemoryExceeded: not within the memory that a scan may take.
    """
    try:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            codes = _tiff(file, header) if header.kind == "tiff" else _other(file.read(), header)
    except (MemoryError, *DECODER_ERRORS) as error:
        if wants_memory(error):
            raise out_of_memory(error) from error
        size = os.fstat(descriptor).st_size
        if header.kind == "jp2" and b"\xff\xd9" not in os.pread(descriptor, 64, max(size - 64, 0)):
            raise ScanTruncated("The JP2 ends too early: let the copy finish or copy it again.") from error
        raise ScanBroken(
            f"The {header.kind.upper()} cannot be decoded ({error}): open it in a viewer and scan or copy it again."
        ) from error
    if codes.shape[:2] != (header.height, header.width):
        raise ScanBroken(f"The {header.kind.upper()} decodes to another size: scan or copy it again.")
    return codes


def _other(data: bytes, header: Header) -> Codes:
    if header.kind == "jp2":
        decoded = imagecodecs.jpeg2k_decode(data)
        return full_range(decoded.reshape(*decoded.shape[:2], -1), header.bit_depth)
    kind = np.dtype(np.uint8 if header.bit_depth == 8 else ">u2")
    count = header.width * header.height * header.channels
    flat = np.frombuffer(data, kind, count, offset=header.directory_index)
    native: Codes = flat.astype(kind.newbyteorder("="), copy=False)
    return native.reshape(header.height, header.width, header.channels)


def _tiff(file: BinaryIO, header: Header) -> Codes:
    with tifffile.TiffFile(tifffile.FileHandle(file, name="scan")) as tiff:
        page = tiff.pages[header.directory_index]
        codes = page.asarray(maxworkers=1)
        colours = page.colormap
    if header.planar:
        codes = np.moveaxis(codes, 0, -1)
    codes = codes.reshape(header.height, header.width, -1)
    if header.photometric == "palette":
        # 16-bit entries by the standard; some writers leave them at 8
        table = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
        painted: Codes = np.moveaxis(table, 0, -1)[codes[..., 0].astype(np.intp)]
        return painted
    wide = full_range(codes, header.bit_depth)
    return np.invert(wide) if header.photometric == "miniswhite" else wide


def full_range(codes: npt.NDArray[np.integer], bits: int) -> Codes:
    """Codes of 2 to 16 bits as 8 or 16 full-range bits: white stays white, black black, the rest in proportion."""
    if bits == codes.dtype.itemsize * 8:
        return codes.astype(np.uint8 if bits == 8 else np.uint16, copy=False)
    target = 255 if bits < 8 else 65535
    limit = 2**bits - 1
    table = (np.arange(limit + 1) * target / limit + 0.5).astype(np.uint8 if bits < 8 else np.uint16)
    scaled: Codes = table[np.minimum(codes, limit)]
    return scaled
