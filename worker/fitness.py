"""Is a version fit to serve? Asked in a fresh process, which a version that crashes or hangs takes with it.

`python -m worker.fitness DIR` loads the version in DIR as a worker would, colours made scans through the very code that
serves, and prints what it found as JSON.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import tifffile

if TYPE_CHECKING:
    from model.colorizer import Colorizer

CHECK_LIMIT_S: Final = 300
LATENCY_RUNS: Final = 7
#: chroma of a picture without any contrast, and of the white mount around one
GRAY_CHROMA: Final = 4.0
MOUNT_CHROMA: Final = 8.0
AB_LIMIT: Final = 110.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One property of a version: the figure found, and the limit it has to keep."""

    name: str
    ok: bool
    figure: float
    limit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitness:
    """What a fresh process found.

    Attributes:
        problem: why the version cannot serve at all; "" when it can.
        findings: the invariants, each with its figure.
        latency_s: shortest time of one picture.
        weights_bytes: size of the weights file.
        architecture: what the net is built from: equal ones compute equally long.
    """

    problem: str = ""
    findings: tuple[Finding, ...] = ()
    latency_s: float = 0.0
    weights_bytes: int = 0
    architecture: str = ""

    @property
    def failed(self) -> list[str]:
        """The invariants that do not hold."""
        return [f"{f.name} is {f.figure:.3g}, the limit is {f.limit:.3g}" for f in self.findings if not f.ok]


def check(directory: Path) -> Fitness:
    """Examine a version in a process of its own."""
    environ = {**os.environ, "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": "-1"}  # the GPU is busy serving or training
    try:
        done = subprocess.run(
            [sys.executable, "-m", "worker.fitness", str(directory)],
            env=environ, capture_output=True, text=True, timeout=CHECK_LIMIT_S, check=False,
        )  # fmt: skip
        told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 and done.stdout else None
    except subprocess.TimeoutExpired:
        return Fitness(problem=f"it did not load within {CHECK_LIMIT_S} s in a fresh process")
    except ValueError:
        told = None
    if told is None:
        words = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return Fitness(problem=f"a fresh process that loads it fails: {words[0]}")
    return Fitness(**told | {"findings": tuple(Finding(**finding) for finding in told["findings"])})


def examine(directory: Path) -> Fitness:
    """Load the version in this process and measure everything."""
    from model.colorizer import ChromaNotFinite, Colorizer
    from model.registry import WeightsError, open_version, weights_path

    try:
        version = open_version(directory)
        colorizer = Colorizer(version)
        colorizer.warm()
        findings = _invariants(colorizer)
    except (WeightsError, ChromaNotFinite) as error:
        return Fitness(problem=str(error))
    light = _picture().astype(np.float32) * 100
    architecture = {"net": version.config["architecture"], "px": version.serve_size_px, "flip": version.flip_average,
                    "framing": version.framing}  # fmt: skip
    return Fitness(
        findings=tuple(findings),
        latency_s=min(_seconds(lambda: colorizer.chroma(light)) for _ in range(LATENCY_RUNS)),
        weights_bytes=weights_path(version).stat().st_size,
        architecture=json.dumps(architecture, sort_keys=True),
    )


def _seconds(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def _invariants(colorizer: "Colorizer") -> list[Finding]:
    light = _picture().astype(np.float32) * 100
    once, again = colorizer.chroma(light), colorizer.chroma(light)
    mounted = np.full((320, 320), 97.0, np.float32)
    mounted[48:-48, 48:-48] = light[:224, :224]
    mount = np.hypot(*np.moveaxis(colorizer.chroma(mounted), -1, 0))
    edge = max(1, len(mount) // 16)
    flat = colorizer.chroma(np.full((64, 64), 50.0, np.float32))
    found = [
        _at_most("difference of two runs", float(np.abs(once - again).max()), 0.0),
        _at_most("|ab|", float(np.abs(once).max()), AB_LIMIT),
        _at_most("chroma of a constant gray", float(np.hypot(flat[..., 0], flat[..., 1]).max()), GRAY_CHROMA),
        _at_most("chroma of a white mount", float(mount[:edge].mean()), MOUNT_CHROMA),
    ]
    for bits, limit in ((8, 0.25), (16, 0.01)):
        found.append(_at_most(f"|ΔL*| at {bits} bit", _lightness_error(colorizer, bits), limit))
    return found


def _at_most(name: str, figure: float, limit: float) -> Finding:
    return Finding(name=name, ok=bool(figure <= limit), figure=figure, limit=limit)


def _picture() -> np.ndarray:
    """A made scene in 0..1, `[240, 320]`: a sky that falls off, hills, a round thing, grain."""
    y, x = np.mgrid[0:240, 0:320].astype(np.float64)
    scene = 0.9 - 0.3 * y / 240
    hills = y > 140 + 25 * np.sin(x / 40)
    scene[hills] = 0.35 + 0.1 * np.sin(x[hills] / 9) * np.cos(y[hills] / 7)
    scene[np.hypot(y - 110, x - 220) < 40] = 0.6
    noise: np.ndarray = np.clip(scene + np.random.default_rng(0).normal(0, 0.01, scene.shape), 0, 1)
    return noise


def _lightness_error(colorizer: "Colorizer", bits: int) -> float:
    """Greatest |ΔL*| between a made scan and its derivative, as both lie on disk."""
    from worker import derivative, scans

    scans.set_up_libvips(threads=1)
    top = 255 if bits == 8 else 65535
    codes = np.round(_picture() * top).astype(np.uint8 if bits == 8 else np.uint16)
    origin = derivative.Origin(
        source_name="made", source_sha256="0" * 64, model_version=colorizer.version.name,
        weights_sha256=colorizer.version.weights_sha256,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile(dir=folder) as target:
        path = Path(folder) / "made.tif"
        tifffile.imwrite(path, codes, photometric="minisblack")
        with scans.open_scan(path) as scan:
            derivative.render(scan, colorizer, target.fileno(), policy=derivative.Policy(), origin=origin)
            return float(derivative.verify(scan, target.fileno()).max)


def main(directory: str) -> None:
    """Print a version's fitness as one line of JSON."""
    sys.stdout.write(json.dumps(dataclasses.asdict(examine(Path(directory)))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
