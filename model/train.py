"""Training from a folder of colour photos to weights that can serve: phases, resume, sample grids, export."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from model.calibrate import Calibration, calibrate
from model.checkpoints import load_checkpoint, save_checkpoint
from model.config import Phase, Preset
from model.config import preset as preset_named
from model.data import Batches
from model.encoder import load_encoder, published_weights
from model.gan import LOSSES, Adversaries, Step
from model.history import History
from model.photos import Pack, draw, find_photos, pack_photos, split_holdout
from model.sheets import training_sheet
from model.weights_file import WeightsFileError, read_weights, write_weights

logger = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 180.0
LOG_EVERY_STEPS = 25
WARM_UP_STEPS = 100


class TrainingError(RuntimeError):
    """Training cannot start or cannot go on; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is; handed to the caller every `LOG_EVERY_STEPS` steps, and while photos are decoded (`packing`)."""

    phase: str
    step: int
    fraction: float
    images_s: float
    eta_s: float
    losses: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run left in its output folder."""

    output: Path
    weights: Path
    steps: int
    photos: int
    dropped: dict[str, str]
    calibration: Calibration


@dataclasses.dataclass(kw_only=True)
class _Run:
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

    def fraction(self) -> float:
        """Part of the budget that is used, 0..1; by steps where they are given, so that such runs repeat exactly."""
        if self.steps is not None:
            return min(1.0, self.step / max(1, self.steps))
        return min(1.0, self.elapsed_s / (60 * (self.minutes or self.preset.minutes)))

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        names = ("seed", "step", "elapsed_s", "phase", "phase_step")
        return {name: getattr(self, name) for name in names} | {"preset": self.preset.name}


def train(
    photos: Sequence[Path],
    output: Path,
    *,
    preset: str | Preset = "default",
    minutes: float | None = None,
    steps: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    resume: bool = True,
    start: Path | None = None,
    start_discriminator: Path | None = None,
    cache: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TrainResult:
    """Train a generator and leave weights, `config.json`, `history.csv`, sample grids and checkpoints in `output`.

    Args:
        photos: folders of colour photos, in the forms that `model.photos` reads.
        output: folder of the run; a run that was stopped there goes on, unless `resume` is False.
        preset: name of a recipe in `model.config.PRESETS`, or a recipe.
        minutes: budget of training time; the preset's own where neither this nor `steps` is given.
        steps: budget in steps instead; such a run repeats bit for bit on one machine up to the order of sums.
        sample: how many photos to draw from all that are found.
        seed: decides weights, draw, batches.
        resume: go on from the output folder's checkpoint where there is one.
        start: generator weights (npz) to start from.
        start_discriminator: discriminator weights (npz) to start from.
        cache: folder for decoded photos, `output/cache` by default; runs on the same photos may share it.
        progress: called while the run goes on.

    Raises:
        PhotosError: no usable photos.
        ConfigError: no such preset.
        EncoderError: the preset needs ImageNet weights that are not installed.
        TrainingError: start weights that do not fit, a checkpoint of another run, or a loss that is no number.
    """
    recipe = preset_named(preset) if isinstance(preset, str) else preset
    output.mkdir(parents=True, exist_ok=True)
    pack = _packed(photos, cache or output / "cache", recipe, sample, seed, progress)
    learned, held = split_holdout(pack, recipe.holdout_photos)
    keras.utils.set_random_seed(seed)
    run = _Run(output=output, preset=recipe, seed=seed, minutes=minutes, steps=steps)
    players = Adversaries(recipe)
    if not (resume and _resume(run, players)):
        _start(players, start, start_discriminator)
        _write_config(run, pack, len(learned), start)
    History(output / "history.csv").rewind(run.step)
    batches = Batches(pack, learned, recipe.sampling, recipe.batch, seed)
    while run.phase < len(recipe.phases):
        _train_phase(run, players, batches, progress)
    return _finish(run, players, pack, held)


def _packed(
    folders: Sequence[Path],
    cache: Path,
    preset: Preset,
    sample: int | None,
    seed: int,
    progress: Callable[[Progress], None],
) -> Pack:
    def say(done: int, total: int) -> None:
        progress(Progress(phase="packing", step=done, fraction=done / total, images_s=0, eta_s=0, losses={}))

    photos = draw(find_photos(folders), sample, seed)
    return pack_photos(photos, cache, preset.cache_px, preset.sampling.least_colourfulness, say)


def _start(players: Adversaries, start: Path | None, start_discriminator: Path | None) -> None:
    if players.preset.encoder_weights == "imagenet" and start is None:
        load_encoder(players.generator, published_weights())
    pairs = ((players.generator, start), (players.discriminator, start_discriminator))
    for net, path in pairs:
        if path is not None:
            try:
                read_weights(net, path)
            except WeightsFileError as error:
                raise TrainingError(f"Cannot start from {path}: {error}") from error
    players.reset_average()


def _resume(run: _Run, players: Adversaries) -> bool:
    found = load_checkpoint(run.output / "checkpoints")
    if found is None:
        return False
    arrays, record = found
    if (record["preset"], record["seed"]) != (run.preset.name, run.seed):
        raise TrainingError(
            f"{run.output} holds a run of the preset '{record['preset']}' with seed {record['seed']}; "
            "give another output folder, or the same preset and seed to go on with it."
        )
    run.step, run.elapsed_s = record["step"], record["elapsed_s"]
    run.phase, run.phase_step = record["phase"], record["phase_step"]
    players.restore(arrays)
    logger.info("goes on at step %d", run.step)
    return True


def _rate(phase: Phase, part: float, phase_step: int) -> float:
    """Adam's rate: linear warm-up, constant, with `decays` a cosine to 0 over the last 60 %."""
    rate = phase.rate * min(1.0, (phase_step + 1) / WARM_UP_STEPS) if phase.objective == "l1" else phase.rate
    if phase.decays and part > 0.4:
        rate *= 0.5 * (1 + np.cos(np.pi * (part - 0.4) / 0.6))
    return float(rate)


def _gan_weight(phase: Phase, part: float) -> float:
    return min(1.0, part / phase.ramp) if phase.ramp > 0 else 1.0


def _train_phase(run: _Run, players: Adversaries, batches: Batches, progress: Callable[[Progress], None]) -> None:
    phase = run.preset.phases[run.phase]
    begin = sum(p.share for p in run.preset.phases[: run.phase])
    if run.phase_step == 0 and run.phase > 0:
        players.take_average()
    moments = players.state() if run.phase_step else None
    step = players.begin(phase)
    if moments is not None:
        players.restore(moments)
    clock = _Clock(run)
    losses: list[tf.Tensor] = []
    for light, colour in batches.dataset(run.step, phase.size_px):
        part = min(1.0, (run.fraction() - begin) / phase.share)
        if part >= 1.0:
            break
        losses.append(_one_step(step, phase, part, run.phase_step, light, colour))
        run.step, run.phase_step = run.step + 1, run.phase_step + 1
        run.elapsed_s = clock.elapsed_s()
        if len(losses) == LOG_EVERY_STEPS:
            progress(_log(run, phase, losses, clock))
            losses = []
            if clock.checkpoint_due():
                _checkpoint(run, players, batches)
    if losses:
        progress(_log(run, phase, losses, clock))
    run.phase, run.phase_step = run.phase + 1, 0
    _checkpoint(run, players, batches)
    with players.averaged():
        write_weights(players.generator, run.output / f"generator_{phase.name}.npz")


def _one_step(step: Step, phase: Phase, part: float, phase_step: int, light: Any, colour: Any) -> tf.Tensor:
    rate, gan_weight = _rate(phase, part, phase_step), _gan_weight(phase, part)
    return step(light, colour, tf.constant(rate, tf.float32), tf.constant(gan_weight, tf.float32))


class _Clock:
    """Training time over all resumes, and the speed since this process started."""

    def __init__(self, run: _Run) -> None:
        self._before_s, self._start_step = run.elapsed_s, run.step
        self._start = self._saved = time.monotonic()

    def elapsed_s(self) -> float:
        return self._before_s + time.monotonic() - self._start

    def images_s(self, run: _Run) -> float:
        return (run.step - self._start_step) * run.preset.batch / max(1e-6, time.monotonic() - self._start)

    def checkpoint_due(self) -> bool:
        due = time.monotonic() - self._saved > CHECKPOINT_EVERY_S
        if due:
            self._saved = time.monotonic()
        return due


def _log(run: _Run, phase: Phase, losses: list[tf.Tensor], clock: _Clock) -> Progress:
    means = np.mean([loss.numpy() for loss in losses], axis=0)
    if not np.isfinite(means).all():
        raise TrainingError(
            f"The loss is no number any more in phase '{phase.name}' at step {run.step}; "
            "start again from the last checkpoint with a smaller rate, or look for broken photos."
        )
    named = dict(zip(LOSSES, (float(v) for v in means), strict=True))
    speed, fraction = clock.images_s(run), run.fraction()
    History(run.output / "history.csv").append(run.step, phase.name, named, speed, run.elapsed_s)
    eta_s = run.elapsed_s * (1 - fraction) / max(fraction, 1e-6)
    return Progress(phase=phase.name, step=run.step, fraction=fraction, images_s=speed, eta_s=eta_s, losses=named)


def _checkpoint(run: _Run, players: Adversaries, batches: Batches) -> None:
    save_checkpoint(run.output / "checkpoints", players.state(), run.record())
    folder = run.output / "samples"
    folder.mkdir(exist_ok=True)
    light, colour = batches.at(0, 128)
    with players.averaged():
        ours = np.asarray(players.generator(light[:8], training=False))
    training_sheet(folder / f"step_{run.step:07d}.png", light[:8], ours, colour[:8])


def _write_config(run: _Run, pack: Pack, learned: int, start: Path | None) -> None:
    recipe = run.preset
    record = {
        "preset": dataclasses.asdict(recipe),
        "lambda": recipe.l1_weight,
        "adam": {"generator": recipe.phases[-1].rate, "discriminator": recipe.critic_rate, "beta_1": recipe.beta_1},
        "seed": run.seed,
        "minutes": run.minutes if run.steps is None else None,
        "steps": run.steps,
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


def _finish(run: _Run, players: Adversaries, pack: Pack, held: np.ndarray) -> TrainResult:
    players.take_average()
    weights = run.output / "generator.npz"
    write_weights(players.generator, weights)
    write_weights(players.discriminator, run.output / "discriminator.npz")
    result = calibrate(players.generator, pack, held, run.preset)
    path = run.output / "config.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record |= {"calibration": dataclasses.asdict(result), "trained_steps": run.step, "trained_s": run.elapsed_s}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return TrainResult(
        output=run.output, weights=weights, steps=run.step, photos=len(pack), dropped=pack.dropped, calibration=result
    )
