"""TIFF and BigTIFF, strip by strip and page by page, and EXIF blocks for other kinds (TIFF 6.0, BigTIFF, Exif 2.32)."""

import os
import struct
from collections.abc import Callable, Mapping
from typing import Final

import imagecodecs

from worker.output_folder import write_all
from worker.tiff_tags import Tag
from worker.writers import Codes, Sheet

#: offsets of a classic TIFF have 32 bits; the rest is room for tags
_CLASSIC_LIMIT: Final = 2**32 - 2**26
_COMPRESSION: Final = {"none": 1, "lzw": 5, "deflate": 8, "zstd": 50000}
#: of Deflate, by bytes per sample: higher levels gain 1 % on 8 bits and nothing on 16, where grain does not compress
_LEVELS: Final = {1: 2, 2: 1}


def rational(value: float) -> tuple[int, int]:
    """A resolution as TIFF's fraction of two 32-bit integers, exact to 1e-6."""
    whole = round(value)
    if abs(value - whole) < 1e-9 and 0 < whole < 2**32:
        return whole, 1
    scale = min(1_000_000, int((2**32 - 1) / max(value, 1.0)))
    return round(value * scale), scale


def integers(kind: int, *values: int) -> Tag:
    """A tag of integers, little endian; kind 3 (16 bits), 4 (32) or 16 (64)."""
    letter = {3: "H", 4: "I", 16: "Q"}[kind]
    return Tag(type=kind, count=len(values), raw=struct.pack(f"<{len(values)}{letter}", *values))


def resolution_tags(sheet: Sheet) -> dict[int, Tag]:
    """XResolution, YResolution and ResolutionUnit; nothing when the scan had none."""
    if not sheet.x_resolution or not sheet.y_resolution:
        return {}
    return {
        282: Tag(type=5, count=1, raw=struct.pack("<II", *rational(sheet.x_resolution))),
        283: Tag(type=5, count=1, raw=struct.pack("<II", *rational(sheet.y_resolution))),
        296: integers(3, {"inch": 2, "cm": 3}.get(sheet.resolution_unit, 1)),
    }


def put_directory(tags: Mapping[int, Tag], put: Callable[[bytes], int], *, big: bool = False) -> tuple[int, int]:
    """A directory with its values.

    Args:
        tags: little endian.
        put: appends bytes on an even offset and says where.
        big: of a BigTIFF.

    Returns:
        Where the directory starts, and where the offset of the next one belongs.
    """
    word, inline = ("Q", 8) if big else ("I", 4)
    fields = []
    for number, tag in sorted(tags.items()):
        raw = tag.raw if len(tag.raw) <= inline else struct.pack("<" + word, put(tag.raw))
        fields.append(struct.pack("<HH" + word, number, tag.type, tag.count) + raw.ljust(inline, b"\0"))
    count = struct.pack("<Q" if big else "<H", len(fields))
    start = put(count + b"".join(fields) + bytes(inline))
    return start, start + len(count) + sum(map(len, fields))


def put_below(
    below: Mapping[int, Mapping[int, Tag]], put: Callable[[bytes], int], *, big: bool = False
) -> dict[int, Tag]:
    """The directories that tags point to (EXIF, GPS); returns those tags."""
    # a BigTIFF's pointers are 64 bits wide
    return {number: integers(16 if big else 4, put_directory(tags, put, big=big)[0]) for number, tags in below.items()}


def exif_block(sheet: Sheet) -> bytes:
    """The EXIF block for a PNG or JPEG; empty when there is nothing to say."""
    tags = dict(sheet.tags) | resolution_tags(sheet)
    if sheet.orientation != 1:
        tags[274] = integers(3, sheet.orientation)
    if not tags and not sheet.below:
        return b""
    block = bytearray(struct.pack("<2sHI", b"II", 42, 0))

    def put(data: bytes) -> int:
        """Append to the block at an even offset; returns where it lies."""
        start = len(block)
        block.extend(data + b"\0" * (len(data) % 2))
        return start

    start, _ = put_directory(tags | put_below(sheet.below, put), put)
    struct.pack_into("<I", block, 4, start)
    return bytes(block)


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
        entries = self._entries() | put_below(self._sheet.below, self._put, big=self._big)
        start, link = put_directory(entries, self._put, big=self._big)
        os.pwrite(self._file, struct.pack("<" + self._word, start), self._link)
        self._link = link

    def _entries(self) -> dict[int, Tag]:
        s = self._sheet
        entries = dict(s.tags)
        long = 16 if self._big else 4
        entries |= {
            254: integers(4, 0), 256: integers(4, s.width), 257: integers(4, s.height),
            258: integers(3, *[s.bit_depth] * 3), 259: integers(3, _COMPRESSION[self._compression]),
            262: integers(3, 2), 273: integers(long, *self._offsets), 274: integers(3, s.orientation),
            277: integers(3, 3), 278: integers(4, s.rows), 279: integers(long, *self._counts), 284: integers(3, 1),
            34675: Tag(type=7, count=len(s.icc), raw=s.icc), 700: Tag(type=1, count=len(s.xmp), raw=s.xmp),
        }  # fmt: skip
        if self._compression != "none":
            entries[317] = integers(3, 2)
        if s.iptc:
            entries[33723] = Tag(type=7, count=len(s.iptc), raw=s.iptc)
        return entries | resolution_tags(s)
