"""Files as archives really hold them: cut short, empty, enormous, lying about what they are."""

import io
import struct
import zlib
from pathlib import Path
from typing import Final

import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from plant import png, scan

GIB: Final = 1 << 30
#: where a made TIFF's pixels begin, after its directory
_HEAD_BYTES: Final = 200
_TIFF_NONE, _TIFF_DEFLATE, _TIFF_ZSTD = 1, 8, 50000


def one_strip(width: int, height: int, stored_bytes: int, kind: int = _TIFF_NONE, at: int = _HEAD_BYTES) -> bytes:
    """The head of an 8-bit gray TIFF whose pixels lie in one strip."""
    facts = ((256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, kind), (262, 3, 1), (273, 4, at),
             (277, 3, 1), (278, 4, height), (279, 4, stored_bytes))  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in facts)
    return (struct.pack("<2sHIH", b"II", 42, 8, len(facts)) + entries + bytes(4)).ljust(_HEAD_BYTES, b"\0")


def png_of(width: int, height: int, stored: bytes) -> bytes:
    """An 8-bit gray PNG that claims a size and holds these compressed rows."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", stored) + chunk(b"IEND", b"")


def deflated_zeros(count: int) -> bytes:
    """A thousandth of what comes out of it again."""
    pump, block = zlib.compressobj(9), bytes(1 << 20)
    return b"".join(pump.compress(block[: min(count - at, 1 << 20)]) for at in range(0, count, 1 << 20)) + pump.flush()


def jpeg(picture: np.ndarray, mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(out, "jpeg", quality=95)
    return out.getvalue()


def tiff(picture: np.ndarray, photometric: str = "minisblack") -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, picture, photometric=photometric, metadata=None, rowsperstrip=16)
    return out.getvalue()


def scan_after_a_hole(path: Path) -> None:
    """A TIFF of 1 GiB whose small picture lies at its very end; the rest is a hole on disk."""
    picture = scan(901)
    height, width = picture.shape
    with path.open("wb") as file:
        file.write(one_strip(width, height, picture.nbytes, at=GIB))
        file.seek(GIB)
        file.write(picture.tobytes())


def pixels_of_a_gib(path: Path) -> None:
    """A TIFF of 538 megapixels at 16 bits, all of them in a hole on disk: black."""
    width, height, rows = 26_000, 20_700, 128
    strips = -(-height // rows)
    base = 8 + 2 + 12 * 9 + 4
    first = base + 8 * strips
    sizes = [2 * width * min(rows, height - number * rows) for number in range(strips)]
    facts = ((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
             (273, 4, strips, base), (277, 3, 1, 1), (278, 4, 1, rows),
             (279, 4, strips, base + 4 * strips))  # fmt: skip
    with path.open("wb") as file:
        file.write(struct.pack("<2sHIH", b"II", 42, 8, len(facts)))
        file.write(b"".join(struct.pack("<HHII", *fact) for fact in facts) + bytes(4))
        file.write(struct.pack(f"<{strips}I", *(first + 2 * width * rows * number for number in range(strips))))
        file.write(struct.pack(f"<{strips}I", *sizes))
        file.truncate(first + sum(sizes))


def make_all(folder: Path) -> None:
    """One file of each kind; tests/fault/test_contents.py says what becomes of it."""
    gray, zeros = scan(902), deflated_zeros(900_000_000)
    frame = tiff(scan(903, 96))
    black = imagecodecs.zstd_encode(bytes(GIB))
    made = {
        "empty.png": b"",
        "empty.dat": b"",
        "zeros.tif": bytes(4000),
        "cut.jpg": jpeg(scan(904, 200))[:-3000],
        "cut.tif": frame[: len(frame) * 2 // 3],
        "loop.tif": one_strip(64, 48, 64 * 48)[:118] + struct.pack("<I", 8) + bytes(_HEAD_BYTES - 122) + bytes(64 * 48),
        "bomb-claims.png": png_of(2**31 - 1, 2**31 - 1, zlib.compress(bytes(1000))),
        "bomb-claims.tif": one_strip(2**32 - 1, 2**32 - 1, 1000) + bytes(1000),
        "bomb-claims.jpg": jpeg(gray).replace(struct.pack(">HH", *gray.shape), b"\xff\xdc\xff\xdc", 1),
        "bomb-inflates.png": png_of(30_000, 30_000, deflated_zeros(30_001 * 30_000)),
        "bomb-strip.tif": one_strip(30_000, 30_000, len(zeros), _TIFF_DEFLATE) + zeros,
        "bomb-zstd.tif": one_strip(64, 48, len(black), _TIFF_ZSTD) + black,
        "cmyk.jpg": jpeg(scan(905), "CMYK"),
        "cmyk.tif": tiff(np.stack([scan(906 + plate) for plate in range(4)], axis=-1), "separated"),
        "a png.jpg": png(scan(910)),
        "a jpeg.tif": jpeg(scan(911)),
        "a tiff without a suffix": tiff(scan(912)),
        "a text.tif": b"This is no picture.\n" * 20,
        "a text.txt": b"Nor is this.\n",
        "16 bits.png": png(scan(913, bits=16)),
        "16 bits.tif": tiff(scan(914, bits=16)),
    }
    for name, data in made.items():
        (folder / name).write_bytes(data)
    scan_after_a_hole(folder / "gib with a scan.tif")
    pixels_of_a_gib(folder / "gib of black.tif")
