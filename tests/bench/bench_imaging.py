"""What a picture costs, in time and memory, against the floor; and how good chroma upsampling is.

    python tests/bench/bench_imaging.py [--megapixels 24 100] [--depths 8 16] [--compressions none deflate jpeg]
    python tests/bench/bench_imaging.py --chroma

The floor is the same libraries reading the file and writing an RGB file of the same kind without any colour work, in
the same run. Ours is everything a job does with pixels: survey, colour, write (`render`), and apart from it the proof
(`verify`). CPU seconds are printed beside wall time because they do not depend on what else the machine does. Each case
runs in a process of its own, so that peak memory is the case's.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyvips

SHARED = Path(__file__).parents[2].parent / "shared"
#: sources that no version learns from (`model/replay/base_sources.csv`), and not the set that the card's figures are of
HELD_OUT = ("pacs_photo", "weather_sky")
ROWS = 512


def make_scan(path: Path, megapixels: float, bit_depth: int, compression: str) -> None:
    """A gray scan, 3:2, soft shapes with grain, in strips of 512 rows."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(height * 1.5)
    rng = np.random.default_rng(0)
    soft = cv2.GaussianBlur(rng.random((ROWS, width)).astype(np.float32), (0, 0), 9)
    grain = np.clip((soft - soft.min()) / np.ptp(soft) + rng.normal(0, 0.01, soft.shape), 0, 1)
    block = (grain * (2**bit_depth - 1)).astype(np.uint16 if bit_depth == 16 else np.uint8)
    image = pyvips.Image.new_from_array(block).replicate(1, -(-height // ROWS)).crop(0, 0, width, height)
    image = image.copy(interpretation="grey16" if bit_depth == 16 else "b-w")
    image.tiffsave(str(path), compression=compression)


class Painted:
    """Gives smooth chroma at once: the net's own time (0.05 to 0.2 s) does not depend on the scan."""

    def chroma(self, light: np.ndarray, ratio: float | None = None) -> np.ndarray:
        """`[H, W]` -> `[128, 128, 2]`."""
        y, x = np.mgrid[0:128, 0:128] / 127
        return (25 * np.stack([np.sin(5 * x + y), np.cos(4 * y - x)], axis=-1)).astype(np.float32)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def floor(source: Path, target: Path, kind: str, compression: str) -> None:
    """Read, repeat gray as RGB, write."""
    image = pyvips.Image.new_from_file(str(source), access="sequential")
    rgb = image.bandjoin([image, image]).copy(interpretation="rgb16" if image.format == "ushort" else "srgb")
    if kind == "jpeg":
        rgb.jpegsave(str(target), Q=95, subsample_mode="off")
    else:
        options = {} if compression == "none" else {"compression": "deflate", "predictor": "horizontal", "level": 2}
        rgb.tiffsave(str(target), **options)


def case(folder: Path, megapixels: float, bit_depth: int, compression: str) -> dict[str, Any]:
    """One case, in this process."""
    from worker import derivative, scans

    scans.set_up_libvips(threads=2)
    source, target = folder / "scan.tif", folder / "out"
    make_scan(source, megapixels, bit_depth, compression)
    kind = "jpeg" if compression == "jpeg" else "tiff"
    policy = derivative.Policy(kind=kind, tiff_compression="none" if compression == "none" else "deflate")
    origin = derivative.Origin(source_name="scan", source_sha256="", model_version="bench", weights_sha256="")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    low = timed(lambda: floor(source, target, kind, compression))
    after_floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    report: list[Any] = []
    with scans.open_scan(source) as scan:
        survey = timed(lambda: scans.open_scan(source).close())
        render = timed(lambda: derivative.render(scan, Painted(), descriptor, policy=policy, origin=origin))
        proof = timed(lambda: report.append(derivative.verify(scan, descriptor)))
    os.close(descriptor)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"floor": low, "survey": survey, "render": render, "verify": proof, "out_mb": target.stat().st_size / 1e6,
            "max": report[0].max, "within": report[0].within, "floor_mib": (after_floor - before) / 1024,
            "ours_mib": (after - before) / 1024}  # fmt: skip


def table(megapixels: list[float], depths: list[int], compressions: list[str]) -> None:
    """Every case in a process of its own."""
    print(
        "    MP bits kind     | floor s (CPU) | survey+render s (CPU) | ratio wall / CPU | verify s | RSS MiB | max ΔL*"
    )
    for mp in megapixels:
        for depth in depths:
            for compression in compressions:
                if compression == "jpeg" and depth == 16:
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    command = [sys.executable, __file__, "--case", folder, str(mp), str(depth), compression]
                    result = subprocess.run(command, capture_output=True, text=True, check=True)
                r = json.loads(result.stdout.splitlines()[-1])
                ours = [a + b for a, b in zip(r["survey"], r["render"], strict=True)]
                ratios = f"{ours[0] / r['floor'][0]:7.2f} / {ours[1] / r['floor'][1]:5.2f}"
                print(
                    f"{mp:6.0f} {depth:4d} {compression:8s} | {r['floor'][0]:6.2f} ({r['floor'][1]:6.2f}) | "
                    f"{ours[0]:10.2f} ({ours[1]:6.2f}) | {ratios} | {r['verify'][0]:8.2f} | {r['ours_mib']:7.0f} | "
                    f"{r['max']:.4f}"
                )


def chroma_table() -> None:
    """Mean PSNR of ab over every eighth photograph held out, with true chroma kept at 1/4, 1/8 and 1/16."""
    from model import lab
    from model.chroma import ChromaUpsampler
    from model.photos import decode, find_photos

    scores: dict[tuple[int, str], list[float]] = {}
    photos = find_photos([SHARED / "photos" / source for source in HELD_OUT])[::8]
    for photo in photos:
        values = lab.lab_from_srgb(decode(photo) / 255.0).astype(np.float32)
        light, truth = np.ascontiguousarray(values[..., 0]), np.ascontiguousarray(values[..., 1:])
        height, width = light.shape
        for factor in (4, 8, 16):
            cells = (width // factor, height // factor)
            low = cv2.resize(truth, cells, interpolation=cv2.INTER_AREA)
            ways = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
            tried = {name: cv2.resize(low, (width, height), interpolation=way) for name, way in ways.items()}
            tried["guided"] = guided(light, low)
            left = low - cv2.resize(tried["guided"], cells, interpolation=cv2.INTER_AREA)
            tried["guided + residual"] = tried["guided"] + cv2.resize(
                left, (width, height), interpolation=cv2.INTER_CUBIC
            )
            tried["ours"] = np.dstack(ChromaUpsampler(low, light, width, height).rows(0, light))
            for name, ab in tried.items():
                error = float(np.mean((ab - truth) ** 2))
                scores.setdefault((factor, name), []).append(10 * np.log10(220.0**2 / error))
    print(f"{len(photos)} photographs of {', '.join(HELD_OUT)}")
    for factor in (4, 8, 16):
        print(f"1/{factor}: " + ", ".join(f"{n} {np.mean(v):.2f} dB" for (f, n), v in scores.items() if f == factor))


def guided(light: np.ndarray, low: np.ndarray, smoothness: float = 10.0) -> np.ndarray:
    """The fast guided filter (He and Sun 2015), radius 1, for comparison."""
    height, width = light.shape
    coarse = cv2.resize(light, (low.shape[1], low.shape[0]), interpolation=cv2.INTER_AREA)

    def mean(plane: np.ndarray) -> np.ndarray:
        return cv2.blur(plane, (3, 3), borderType=cv2.BORDER_REFLECT)

    out = np.empty((height, width, 2), np.float32)
    for i in range(2):
        plane = np.ascontiguousarray(low[..., i])
        slope = (mean(coarse * plane) - mean(coarse) * mean(plane)) / (mean(coarse**2) - mean(coarse) ** 2 + smoothness)
        offset = mean(plane) - slope * mean(coarse)
        wide = [cv2.resize(mean(p), (width, height), interpolation=cv2.INTER_LINEAR) for p in (slope, offset)]
        out[..., i] = wide[0] * light + wide[1]
    return out


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[24, 100])
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--compressions", nargs="+", default=["none", "deflate", "jpeg"])
    parser.add_argument("--chroma", action="store_true")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        folder, mp, depth, compression = given.case
        print(json.dumps(case(Path(folder), float(mp), int(depth), compression)))
    elif given.chroma:
        chroma_table()
    else:
        table(given.megapixels, given.depths, given.compressions)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
