"""PNG, strip by strip (W3C PNG, 3rd edition; RFC 1950, 1951)."""

import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

from worker.output_folder import write_all
from worker.tiff_writer import exif_block
from worker.writers import Codes, Sheet

_LEVEL: Final = 3


class PngWriter:
    """RGB PNG; strips are deflated apart from each other and joined into one stream."""

    def __init__(self, descriptor: int, sheet: Sheet, *, level: int = _LEVEL) -> None:
        """Start the file.

        Args:
            descriptor: of an empty file or a pipe, writable.
            sheet: the picture.
            level: of Deflate; 0 only wraps the pixels.
        """
        self._file, self._sheet, self._level = descriptor, sheet, level
        self._checksum = 1
        write_all(descriptor, b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", sheet.width, sheet.height, sheet.bit_depth, 2, 0, 0, 0))
        if sheet.icc:
            self._chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(sheet.icc))
        if sheet.x_resolution and sheet.y_resolution and sheet.resolution_unit != "none":
            per_metre = 100 if sheet.resolution_unit == "cm" else 1 / 0.0254
            self._chunk(
                b"pHYs",
                struct.pack(">IIB", round(sheet.x_resolution * per_metre), round(sheet.y_resolution * per_metre), 1),
            )
        if sheet.xmp:
            self._chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + sheet.xmp)
        exif = exif_block(sheet) if level else b""
        if exif:
            self._chunk(b"eXIf", exif)
        self._first = True

    def _chunk(self, name: bytes, data: bytes) -> None:
        write_all(self._file, struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

    def encode(self, codes: Codes) -> bytes:
        """Length of the filtered rows, their Adler-32, and the rows deflated without an end."""
        rows = _filtered(codes) if self._level else unfiltered(codes)
        packer = zlib.compressobj(self._level, zlib.DEFLATED, -15)
        packed = packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
        return struct.pack(">QI", len(rows), zlib.adler32(rows)) + packed

    def append(self, data: bytes) -> None:
        """The next strip."""
        length, checksum = struct.unpack(">QI", data[:12])
        self._checksum = _adler_joined(self._checksum, checksum, length)
        self._chunk(b"IDAT", (b"\x78\x5e" if self._first else b"") + data[12:])
        self._first = False

    def finish(self) -> None:
        """End of the Deflate stream, end of the file."""
        self._chunk(b"IDAT", b"\x03\0" + struct.pack(">I", self._checksum))
        self._chunk(b"IEND", b"")

    def abort(self) -> None:
        """Nothing to release."""


def _big_endian(codes: Codes) -> npt.NDArray[np.uint8]:
    """Rows as PNG's bytes, `[rows, bytes]`."""
    return codes.astype(codes.dtype.newbyteorder(">"), copy=False).reshape(len(codes), -1).view(np.uint8)


def unfiltered(codes: Codes) -> bytes:
    """Rows `[rows, W, 3]` as PNG's bytes, each led by filter 0."""
    raw = _big_endian(codes)
    return np.concatenate([np.zeros((len(raw), 1), np.uint8), raw], axis=1).tobytes()


def _filtered(codes: Codes) -> bytes:
    """Each row as difference to its left (Sub) or, where that is smaller, to the row above (Up); PNG 9.2, 12.7."""
    raw = _big_endian(codes)
    step = 3 * codes.dtype.itemsize
    left = raw.copy()
    left[:, step:] -= raw[:, :-step]
    above = raw.copy()
    above[1:] -= raw[:-1]
    cost_left, cost_above = (np.abs(d.view(np.int8).astype(np.int16)).sum(axis=1) for d in (left, above))
    up = cost_above < cost_left
    up[0] = False  # the row above is in another strip
    rows = np.where(up[:, None], above, left)
    return np.concatenate([np.where(up, 2, 1).astype(np.uint8)[:, None], rows], axis=1).tobytes()


def _adler_joined(first: int, second: int, length: int) -> int:
    """Adler-32 of two pieces from theirs and the second's length (RFC 1950: two sums modulo 65521)."""
    base = 65521
    a1, b1, a2, b2 = first & 0xFFFF, first >> 16, second & 0xFFFF, second >> 16
    a = (a1 + a2 - 1) % base
    b = (b1 + b2 + (a1 - 1) * length) % base
    return b << 16 | a
