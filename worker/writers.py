"""Writing a derivative strip by strip: TIFF, PNG and JPEG, in memory that does not grow with the picture.

Each writer encodes a strip by itself (in any thread) and appends encoded strips in order. Sources: TIFF 6.0, BigTIFF,
PNG (W3C, 3rd edition), JFIF/EXIF segment order (Exif 2.32).
"""

import dataclasses
import io
import os
import struct
import threading
import zlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

import imagecodecs
import numpy as np
import numpy.typing as npt
import pyvips

from worker.tiff_tags import Tag

Codes = npt.NDArray[np.unsignedinteger]

_CLASSIC_LIMIT: Final = 2**32 - 2**26  # room for tags
_TIFF_COMPRESSION: Final = {"none": 1, "lzw": 5, "deflate": 8, "zstd": 50000}
#: of Deflate, by bytes per sample: higher levels gain 1 % on 8 bits and nothing on 16, where grain does not compress
_LEVELS: Final = {1: 2, 2: 1}
_PNG_LEVEL: Final = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
    """What is written besides pixels."""

    width: int
    height: int
    bit_depth: int
    rows: int  # per strip
    icc: bytes
    xmp: bytes
    iptc: bytes = b""
    #: IFD0 tags carried over, and the EXIF block for PNG and JPEG
    tags: Mapping[int, Tag] = dataclasses.field(default_factory=dict)
    exif: bytes = b""
    orientation: int = 1
    x_resolution: float | None = None
    y_resolution: float | None = None
    resolution_unit: str = "none"


class Writer(Protocol):
    """One picture on its way into a file."""

    def encode(self, codes: Codes) -> bytes:
        """A strip `[rows, W, 3]` as it will lie in the file; touches nothing shared."""

    def append(self, data: bytes) -> None:
        """The next encoded strip."""

    def finish(self) -> None:
        """Everything after the last strip."""

    def abort(self) -> None:
        """Give up; the file is left as it is."""


def rational(value: float) -> tuple[int, int]:
    """A resolution as TIFF's fraction of two 32-bit integers, exact to 1e-6."""
    whole = round(value)
    if abs(value - whole) < 1e-9 and 0 < whole < 2**32:
        return whole, 1
    scale = min(1_000_000, int((2**32 - 1) / max(value, 1.0)))
    return round(value * scale), scale


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; `os.write` may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class TiffWriter:
    """RGB TIFF in strips, little endian; BigTIFF when 4 GiB might not do. Directories follow their strips."""

    def __init__(self, descriptor: int, sheet: Sheet, compression: str, total_bytes: int | None = None) -> None:
        """Start the file.

        Args:
            descriptor: of an empty file, writable.
            sheet: the first page.
            compression: "none", "deflate", "lzw" or "zstd".
            total_bytes: of all pages' pixels, when there are more pages than this.
        """
        self._file = descriptor
        pixels = sheet.width * sheet.height * 3 * sheet.bit_depth // 8
        # incompressible grain grows a little under Deflate, by half under LZW
        self._big = (total_bytes or pixels) * (1.5 if compression == "lzw" else 1.01) > _CLASSIC_LIMIT
        self._compression = compression
        self._word = "Q" if self._big else "I"
        head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self._big else struct.pack("<2sHI", b"II", 42, 0)
        write_all(descriptor, head)
        self._link = 8 if self._big else 4  # where the offset of the next directory belongs
        self._at = len(head)
        self.begin(sheet)

    def begin(self, sheet: Sheet) -> None:
        """Start a page; the one before must be ended."""
        self._sheet = sheet
        self._offsets: list[int] = []
        self._counts: list[int] = []

    def encode(self, codes: Codes) -> bytes:
        """A strip with horizontal predictor, compressed."""
        if self._compression == "none":
            return codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes()
        packed = imagecodecs.delta_encode(codes, axis=1).tobytes()
        if self._compression == "deflate":
            return bytes(imagecodecs.deflate_encode(packed, level=_LEVELS[codes.dtype.itemsize]))
        return bytes(
            imagecodecs.lzw_encode(packed) if self._compression == "lzw" else imagecodecs.zstd_encode(packed, level=3)
        )

    def append(self, data: bytes) -> None:
        """The next strip."""
        self._offsets.append(self._at)
        self._counts.append(len(data))
        self._put(data)

    def finish(self) -> None:
        """End the page and the file."""
        self.end_page()

    def abort(self) -> None:
        """Nothing to release."""

    def _put(self, data: bytes) -> int:
        """Append bytes on an even offset for what follows; returns where they start."""
        start = self._at
        write_all(self._file, data + b"\0" * (len(data) % 2))
        self._at += len(data) + len(data) % 2
        return start

    def end_page(self) -> None:
        """Write the page's directory and link it from the one before."""
        entries = self._entries()
        inline = 8 if self._big else 4
        fields = []
        for number, tag in sorted(entries.items()):
            raw = (
                tag.raw.ljust(inline, b"\0")
                if len(tag.raw) <= inline
                else struct.pack("<" + self._word, self._put(tag.raw))
            )
            fields.append(struct.pack("<HH" + self._word, number, tag.type, tag.count) + raw)
        count = struct.pack("<Q" if self._big else "<H", len(fields))
        start = self._put(count + b"".join(fields) + bytes(inline))
        os.pwrite(self._file, struct.pack("<" + self._word, start), self._link)
        self._link = start + len(count) + sum(map(len, fields))

    def _entries(self) -> dict[int, Tag]:
        s = self._sheet
        entries = dict(s.tags)
        long = 16 if self._big else 4
        entries |= {
            254: _integers(4, 0), 256: _integers(4, s.width), 257: _integers(4, s.height),
            258: _integers(3, *[s.bit_depth] * 3), 259: _integers(3, _TIFF_COMPRESSION[self._compression]),
            262: _integers(3, 2), 273: _integers(long, *self._offsets), 274: _integers(3, s.orientation),
            277: _integers(3, 3), 278: _integers(4, s.rows), 279: _integers(long, *self._counts), 284: _integers(3, 1),
            34675: Tag(type=7, count=len(s.icc), raw=s.icc), 700: Tag(type=1, count=len(s.xmp), raw=s.xmp),
        }  # fmt: skip
        if self._compression != "none":
            entries[317] = _integers(3, 2)
        if s.iptc:
            entries[33723] = Tag(type=7, count=len(s.iptc), raw=s.iptc)
        if s.x_resolution and s.y_resolution:
            entries[282] = Tag(type=5, count=1, raw=struct.pack("<II", *rational(s.x_resolution)))
            entries[283] = Tag(type=5, count=1, raw=struct.pack("<II", *rational(s.y_resolution)))
            entries[296] = _integers(3, {"inch": 2, "cm": 3}.get(s.resolution_unit, 1))
        return entries


def _integers(kind: int, *values: int) -> Tag:
    letter = {3: "H", 4: "I", 16: "Q"}[kind]
    return Tag(type=kind, count=len(values), raw=struct.pack(f"<{len(values)}{letter}", *values))


class PngWriter:
    """RGB PNG; strips are deflated apart from each other and joined into one stream."""

    def __init__(self, descriptor: int, sheet: Sheet, *, level: int = _PNG_LEVEL) -> None:
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
        if sheet.exif:
            self._chunk(b"eXIf", sheet.exif)
        self._first = True

    def _chunk(self, name: bytes, data: bytes) -> None:
        write_all(self._file, struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

    def encode(self, codes: Codes) -> bytes:
        """Length of the filtered rows, their Adler-32, and the rows deflated without an end."""
        rows = _filtered(codes) if self._level else _unfiltered(codes)
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


def _unfiltered(codes: Codes) -> bytes:
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


class JpegWriter:
    """RGB JPEG 4:4:4: strips run as an unpacked PNG through a pipe into libvips, whose encoder works line by line."""

    def __init__(self, descriptor: int, sheet: Sheet, quality: int) -> None:
        """Start the encoder in a thread of its own.

        Args:
            descriptor: of an empty file, writable.
            sheet: the picture, 8 bits.
            quality: 1..100.
        """
        self._file, self._sheet, self._quality = descriptor, sheet, quality
        self._error: Exception | None = None
        self._started = False
        reader, self._pipe = os.pipe()
        self._thread = threading.Thread(target=self._run, args=(reader,), name="jpeg-encoder", daemon=True)
        self._thread.start()
        self._feed: PngWriter | None = None

    def encode(self, codes: Codes) -> bytes:
        """Rows wrapped for the pipe."""
        rows = _unfiltered(codes)
        packer = zlib.compressobj(0, zlib.DEFLATED, -15)
        return (
            struct.pack(">QI", len(rows), zlib.adler32(rows)) + packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
        )

    def append(self, data: bytes) -> None:
        """The next strip; raises what the encoder met."""
        try:
            if self._feed is None:
                bare = dataclasses.replace(self._sheet, icc=b"", xmp=b"", exif=b"", x_resolution=None)
                self._feed = PngWriter(self._pipe, bare, level=0)
            self._feed.append(data)
        except BrokenPipeError:
            self._stop()

    def finish(self) -> None:
        """End the picture and wait for the encoder."""
        try:
            if self._feed:
                self._feed.finish()
        except BrokenPipeError:
            pass
        self._stop()

    def abort(self) -> None:
        """Stop the encoder; the file is left as it is."""
        self._error = self._error or RuntimeError("given up")
        os.close(self._pipe)
        self._thread.join()

    def _stop(self) -> None:
        os.close(self._pipe)
        self._thread.join()
        if self._error:
            raise self._error

    def _run(self, reader: int) -> None:
        try:
            image = pyvips.Image.new_from_source(
                pyvips.Source.new_from_descriptor(reader), "", access="sequential", fail_on="truncated"
            )
            target = pyvips.TargetCustom()
            target.on_write(self._write)
            # optimised Huffman tables would make libjpeg keep the whole picture
            options: dict[str, Any] = {"Q": self._quality, "subsample_mode": "off", "keep": "none"}
            image.jpegsave_target(target, **options)
        except (pyvips.Error, OSError) as error:
            self._error = self._error or error
        finally:
            os.close(reader)

    def _write(self, data: bytes) -> int:
        """What libvips gives; our segments go in behind the first one."""
        try:
            write_all(self._file, data if self._started else _with_segments(data, self._sheet))
            self._started = True
        except OSError as error:
            self._error = error
            return -1
        return len(data)


def _with_segments(start: bytes, sheet: Sheet) -> bytes:
    """The beginning of a JPEG with our own JFIF, EXIF, XMP, IPTC and ICC segments."""
    cut = 4 + struct.unpack(">H", start[4:6])[0] if start[2:4] == b"\xff\xe0" else 2
    out = io.BytesIO()
    out.write(start[:2] + _segment(0xE0, b"JFIF\0\x01\x02" + _density(sheet) + b"\0\0"))
    if sheet.exif:
        out.write(_segment(0xE1, b"Exif\0\0" + sheet.exif))
    out.write(_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + sheet.xmp))
    if sheet.iptc:
        padded = sheet.iptc + b"\0" * (len(sheet.iptc) % 2)
        out.write(
            _segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(sheet.iptc)) + padded)
        )
    pieces = [sheet.icc[i : i + 65_000] for i in range(0, len(sheet.icc), 65_000)]
    for number, piece in enumerate(pieces, 1):
        out.write(_segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(pieces)]) + piece))
    out.write(start[cut:])
    return out.getvalue()


def _density(sheet: Sheet) -> bytes:
    """JFIF's unit and density; without a unit its plain 1:1."""
    if not sheet.x_resolution or not sheet.y_resolution or sheet.resolution_unit == "none":
        return struct.pack(">BHH", 0, 1, 1)
    x, y = (min(max(round(value), 1), 65535) for value in (sheet.x_resolution, sheet.y_resolution))
    return struct.pack(">BHH", 2 if sheet.resolution_unit == "cm" else 1, x, y)


def _segment(marker: int, data: bytes) -> bytes:
    if len(data) > 65_533:
        raise OSError(f"a metadata segment of {len(data)} bytes does not fit into a JPEG")
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
