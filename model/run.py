"""A training run besides its arrays: budget, clock, schedules, and the record it writes of itself."""

import dataclasses
import json
import time
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from model.calibrate import Calibration
from model.config import Phase, Preset
from model.pack import Pack
from model.registry import sha256_of
from model.resume import recipe_record

CHECKPOINT_EVERY_S = 180.0
WARM_UP_STEPS = 100
#: shares are sums of fractions, which need not add up to 1 exactly
ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is; handed to the caller every few steps, and while photos are decoded (`packing`)."""

    phase: str
    step: int
    fraction: float
    images_s: float
    eta_s: float
    losses: dict[str, float]


@dataclasses.dataclass(kw_only=True)
class Run:
    """The state of one run that is not arrays."""

    output: Path
    preset: Preset
    seed: int
    minutes: float | None
    steps: int | None
    step: int = 0
    elapsed_s: float = 0.0
    phase: int = 0
    phase_step: int = 0
    #: seconds of training between two checkpoints; None for the default
    checkpoint_every_s: float | None = None
    #: Keras' name for what the generator computes in
    precision: str = "float32"
    #: `resume.photos_digest` of the photos that are learned from
    photos: str = ""

    def fraction(self) -> float:
        """Part of the budget that is used, 0..1: the nearer cap where time and steps are given.

        By steps alone where only they are given, so that such runs repeat exactly.
        """
        by_steps = 0.0 if self.steps is None else self.step / max(1, self.steps)
        if self.steps is not None and self.minutes is None:
            return min(1.0, by_steps)
        return min(1.0, max(by_steps, self.elapsed_s / (60 * (self.minutes or self.preset.minutes))))

    def part(self) -> float:
        """Part of the share of the phase in hand that is used, 0..1."""
        before = sum(phase.share for phase in self.preset.phases[: self.phase])
        part = (self.fraction() - before) / self.preset.phases[self.phase].share
        return part if part < 1.0 - ROUNDING else 1.0

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        names = ("seed", "step", "elapsed_s", "phase", "phase_step")
        known = {"preset": self.preset.name, "recipe": recipe_record(self.preset), "photos": self.photos}
        return {name: getattr(self, name) for name in names} | known


def rate_at(phase: Phase, part: float, phase_step: int) -> float:
    """Adam's rate where `part` (0..1) of the phase is done.

    Constant; L1 phases warm up linearly, and over the last `decay_share` a cosine goes to 0.
    """
    rate = phase.rate * min(1.0, (phase_step + 1) / WARM_UP_STEPS) if phase.objective == "l1" else phase.rate
    falling = part - (1 - phase.decay_share)
    if falling > 0:
        rate *= 0.5 * (1 + np.cos(np.pi * falling / phase.decay_share))
    return float(rate)


def gan_weight_at(phase: Phase, part: float) -> float:
    """Weight of the GAN term, rising from 0 to 1 over the phase's ramp; `part` 0..1 is how far the phase is."""
    return min(1.0, part / phase.ramp) if phase.ramp > 0 else 1.0


class Clock:
    """Training time over all resumes, and the speed since this process started."""

    def __init__(self, run: Run) -> None:
        """Start the clock of a run that may have gone on before."""
        self._before_s, self._start_step = run.elapsed_s, run.step
        self._start = self._saved = time.monotonic()
        every_s = run.checkpoint_every_s
        self._checkpoint_every_s = CHECKPOINT_EVERY_S if every_s is None else every_s

    def elapsed_s(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._before_s + time.monotonic() - self._start

    def images_s(self, run: Run) -> float:
        """Pictures per second since the clock started."""
        return (run.step - self._start_step) * run.preset.batch / max(1e-6, time.monotonic() - self._start)

    def checkpoint_due(self) -> bool:
        """Whether the run's checkpoint interval has passed since this was last true."""
        due = time.monotonic() - self._saved > self._checkpoint_every_s
        if due:
            self._saved = time.monotonic()
        return due


def write_config(run: Run, pack: Pack, learned: int, start: Path | None) -> None:
    """Write the run's `config.json`, and `dropped.tsv` with the photos left out and why."""
    recipe = run.preset
    record = {
        "preset": dataclasses.asdict(recipe),
        "lambda": recipe.l1_weight,
        "adam": {"generator": recipe.phases[-1].rate, "discriminator": recipe.critic_rate, "beta_1": recipe.beta_1},
        "seed": run.seed,
        "minutes": run.minutes,
        "steps": run.steps,
        "precision": run.precision,
        "start": None if start is None else start.name,
        "photos": {"learned": learned, "usable": len(pack), "dropped": len(pack.dropped)},
        "sources": {name: int((pack.sources == i).sum()) for i, name in enumerate(pack.source_names)},
        "packages": {name: package_version(name) for name in ("keras", "numpy", "opencv-python-headless")}
        | {"tensorflow": tf.__version__},
        "device": "gpu" if tf.config.list_physical_devices("GPU") else "cpu",
    }
    (run.output / "config.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if pack.dropped:
        lines = "".join(f"{name}\t{why}\n" for name, why in pack.dropped.items())
        (run.output / "dropped.tsv").write_text(lines, encoding="utf-8", errors="surrogateescape")


def write_version(run: Run, calibration: Calibration) -> None:
    """Add to a finished run's `config.json` what makes its folder a version that can serve."""
    path = run.output / "config.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record |= {
        "name": run.output.resolve().name,
        "architecture": dataclasses.asdict(run.preset.architecture),
        "weights": {"file": "generator.npz", "sha256": sha256_of(run.output / "generator.npz"), "dtype": "float16"},
        "serve_size_px": run.preset.serve_size_px,
        "framing": "square",
        "flip_average": True,
        "saturation": round(calibration.saturation, 3),
        "calibration": dataclasses.asdict(calibration),
        "trained_steps": run.step,
        "trained_s": round(run.elapsed_s, 1),
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
