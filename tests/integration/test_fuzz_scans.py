"""Damaged files never crash the reader, hang it, eat the memory, or end as a derivative that does not decode.

500 cases by default; `FUZZ_CASES=5000 pytest tests/integration/test_fuzz_scans.py --timeout 3600` for more. Seeded.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

CASES = int(os.environ.get("FUZZ_CASES", "500"))
PARTS = 5
MEMORY_BYTES = 1536 * 2**20
HANG_S = 10


def seeds(folder: Path) -> list[bytes]:
    """Small valid files of every kind and layout."""
    rng = np.random.default_rng(0)
    soft = cv2.GaussianBlur(rng.random((48, 64)).astype(np.float32), (0, 0), 3)
    gray = ((soft - soft.min()) / np.ptp(soft) * 255).astype(np.uint8)
    deep, rgb = gray.astype(np.uint16) * 257, np.stack([gray] * 3, axis=-1)
    found = []
    layouts: list[tuple[Any, dict[str, Any]]] = [
        (gray, {}), (deep, {"byteorder": ">"}), (gray, {"tile": (16, 16)}), (deep, {"compression": "lzw"}),
        (gray, {"compression": "adobe_deflate", "predictor": True}), (gray, {"compression": "packbits"}),
        (gray, {"compression": "jpeg"}), (gray, {"compression": "zstd"}), (deep, {"bigtiff": True}),
        (255 - gray, {"photometric": "miniswhite"}), (rgb, {"photometric": "rgb", "compression": "adobe_deflate"}),
        (np.moveaxis(rgb, -1, 0), {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
        (np.stack([gray, gray]), {"iccprofile": b"x" * 200}),
    ]  # fmt: skip
    for number, (picture, options) in enumerate(layouts):
        path = folder / f"{number}.tif"
        tifffile.imwrite(path, picture, metadata=None, **({"photometric": "minisblack"} | options))
        found.append(path.read_bytes())
    for number, (suffix, options) in enumerate(
        (("png", {}), ("jpg", {"quality": 80}), ("jpg", {"progressive": True}), ("webp", {}))
    ):
        path = folder / f"p{number}.{suffix}"
        exif = Image.Exif()
        exif[274], exif[270] = 3, "words"
        Image.fromarray(gray).save(path, exif=exif, **options)
        found.append(path.read_bytes())
    found += [imagecodecs.jpeg2k_encode(gray, level=0, reversible=True), cv2.imencode(".png", deep)[1].tobytes()]
    found.append(b"P5\n64 48\n255\n" + gray.tobytes())
    return found


def damaged(seed: bytes, rng: random.Random) -> bytes:
    """A few bytes changed (mostly in the head, where the structure is), cut, doubled or moved."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(data), 200) if rng.random() < 0.6 else len(data))
        way = rng.random()
        if way < 0.6:
            data[at] = rng.choice((0, 1, 2, 127, 128, 255, rng.randrange(256)))
        elif way < 0.75:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
        elif way < 0.85:
            del data[at : at + rng.randrange(1, 64)]
        else:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        data = data or bytearray(b"\0")
    return bytes(data[: rng.randrange(1, len(data))]) if rng.random() < 0.15 else bytes(data)


def run_part(part: int, cases: int) -> None:
    """The cases of one part, in a process of its own; any end but the named ones is an exception."""
    from worker import derivative, scans
    from worker.errors import ScanError

    class Flat:
        def chroma(self, light: np.ndarray, ratio: float | None = None) -> np.ndarray:
            return np.full((8, 8, 2), 20, np.float32)

    scans.set_up_libvips()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, -1))
    origin = derivative.Origin(source_name="f", source_sha256="0" * 64, model_version="m", weights_sha256="1" * 64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept, ends = seeds(folder), {"coloured": 0}
        for case in range(part, cases, PARTS):
            rng = random.Random(case)
            source, target = folder / "in", folder / "out"
            source.write_bytes(damaged(kept[case % len(kept)], rng))
            print(case, flush=True)
            signal.alarm(HANG_S)
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            try:
                with scans.open_scan(source, max_pixels=4_000_000, force=True) as scan:
                    rendered = derivative.render(scan, Flat(), descriptor, policy=derivative.Policy(), origin=origin)
                    report = derivative.verify(scan, descriptor)
                    derivative.check(rendered, report)
                    assert report.within or rendered.kind == "jpeg", (case, report)
                    ends["coloured"] += 1
            except ScanError as error:
                ends[error.code] = ends.get(error.code, 0) + 1
            finally:
                signal.alarm(0)
                os.close(descriptor)
    print(ends)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory the Linux way")
@pytest.mark.timeout(600 + CASES)
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files_end_by_name(part: int) -> None:
    command = [sys.executable, __file__, str(part), str(CASES)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
                            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip
    last = (result.stdout.split() or ["none"])[-1]
    assert result.returncode == 0, f"case {last} ended with {result.returncode}: {result.stderr[-2000:]}"


if __name__ == "__main__":
    run_part(int(sys.argv[1]), int(sys.argv[2]))
