"""JPEG, strip by strip, with our own metadata segments (JFIF 1.02, Exif 2.32, XMP part 3)."""

import dataclasses
import io
import os
import struct
import threading
import zlib
from typing import Any

import pyvips

from worker.output_folder import write_all
from worker.png_writer import PngWriter, unfiltered
from worker.tiff_writer import exif_block
from worker.writers import Codes, Sheet


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
        rows = unfiltered(codes)
        packer = zlib.compressobj(0, zlib.DEFLATED, -15)
        return (
            struct.pack(">QI", len(rows), zlib.adler32(rows)) + packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
        )

    def append(self, data: bytes) -> None:
        """The next strip; raises what the encoder met."""
        try:
            if self._feed is None:
                bare = dataclasses.replace(self._sheet, icc=b"", xmp=b"", x_resolution=None)
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
        except (pyvips.Error, OSError, MemoryError) as error:
            self._error = self._error or error
        finally:
            os.close(reader)

    def _write(self, data: bytes) -> int:
        """What libvips gives; our segments go in behind the first one."""
        try:
            write_all(self._file, data if self._started else _with_segments(data, self._sheet))
            self._started = True
        except (OSError, MemoryError) as error:  # what is raised here would be lost in libvips
            self._error = error
            return -1
        return len(data)


def _with_segments(start: bytes, sheet: Sheet) -> bytes:
    """The beginning of a JPEG with our own JFIF, EXIF, XMP, IPTC and ICC segments."""
    cut = 4 + struct.unpack(">H", start[4:6])[0] if start[2:4] == b"\xff\xe0" else 2
    out = io.BytesIO()
    out.write(start[:2] + _segment(0xE0, b"JFIF\0\x01\x02" + _density(sheet) + b"\0\0"))
    exif = exif_block(sheet)
    if exif:
        out.write(_segment(0xE1, b"Exif\0\0" + exif))
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
