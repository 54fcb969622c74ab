"""Training from a folder of colour photos to weights that can serve: phases, resume, sample grids, export."""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from model.calibrate import Calibration, calibrate
from model.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from model.config import Phase, Preset
from model.config import preset as preset_named
from model.curves import Curves
from model.data import Batches, whole_photos
from model.encoder import load_encoder, published_weights
from model.gan import LOSSES, Adversaries, Step
from model.history import History
from model.holdout import split_holdout
from model.pack import Pack, pack_photos
from model.photos import Photo, draw, find_photos, refuse_unknown
from model.precision import Precision, chosen
from model.registry import WeightsError, check_discriminator
from model.resume import photos_digest, refuse_another
from model.run import Clock, Progress, Run, gan_weight_at, rate_at, write_config, write_version
from model.sheets import training_sheet
from model.weights_file import WeightsFileError, read_weights, write_weights

logger = logging.getLogger(__name__)

LOG_EVERY_STEPS = 25
#: batches over which the finished generator's running statistics are taken
SETTLING_BATCHES = 24
#: photos of a sample grid, and their side
SHOWN, SHOWN_PX = 8, 128


class TrainingError(RuntimeError):
    """Training cannot start or cannot go on; the message says why and what to do."""


class LossNotFinite(TrainingError):
    """A loss is no number any more: this run is lost."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run left in its output folder."""

    output: Path
    weights: Path
    #: folder of TensorBoard's event files
    curves: Path
    steps: int
    photos: int
    dropped: dict[str, str]
    calibration: Calibration


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
    checkpoint_every_s: float | None = None,
    precision: Precision = "auto",
    curves: Path | None = None,
    holdout_sources: Sequence[str] = (),
    progress: Callable[[Progress], None] = lambda _: None,
) -> TrainResult:
    """Train a generator and leave weights, `config.json`, `history.csv`, curves, grids and checkpoints in `output`.

    Args:
        photos: folders of colour photos, in the forms that `model.photos` reads.
        output: folder of the run; a run that was stopped there goes on, unless `resume` is False.
        preset: name of a recipe in `model.config.PRESETS`, or a recipe.
        minutes: budget of training time, without what the first step of each phase takes to compile; the preset's own
            where neither this nor `steps` is given.
        steps: budget in steps instead, or as a second cap; a run with steps alone repeats bit for bit on the CPU of
            one machine, stopped and resumed or not; a GPU adds up in an order of its own.
        sample: how many photos to draw from all that are found.
        seed: decides weights, draw, batches.
        resume: go on from the output folder's checkpoint where there is one.
        start: generator weights (npz) to start from.
        start_discriminator: discriminator weights (npz) to start from.
        cache: folder for decoded photos, `output/cache` by default; runs on the same photos may share it.
        checkpoint_every_s: seconds of training between two checkpoints; three minutes by default.
        precision: what the generator computes in; "auto" is mixed_float16 on a GPU and float32 elsewhere.
        curves: folder for TensorBoard's event files, `output/tensorboard` by default.
        holdout_sources: names of sources (the folders of `photos`, or the subfolders of the only one) to keep wholly
            out of training and to calibrate by; the preset's number of photos from all sources where there are none.
        progress: called while the run goes on.

    Raises:
        PhotosError: no usable photos.
        ConfigError: no such preset.
        EncoderError: the preset needs ImageNet weights that are not installed.
        TrainingError: start weights that do not fit, a checkpoint that is torn or of another run, or a loss that is no
            number.
    """
    recipe = preset_named(preset) if isinstance(preset, str) else preset
    output.mkdir(parents=True, exist_ok=True)
    found = find_photos(photos)
    refuse_unknown(holdout_sources, found)
    pack = _packed(draw(found, sample, seed), cache or output / "cache", recipe, progress)
    learned, held = split_holdout(pack, recipe.holdout_photos, holdout_sources)
    keras.utils.set_random_seed(seed)
    run = Run(output=output, preset=recipe, seed=seed, minutes=minutes, steps=steps,
              checkpoint_every_s=checkpoint_every_s, precision=chosen(precision))  # fmt: skip
    run.photos = photos_digest(pack, learned)
    players = Adversaries(recipe, run.precision, pack.histograms[learned].mean(0))
    if not (resume and _resume(run, players)):
        _start(players, start, start_discriminator)
        write_config(run, pack, len(learned), start)
    folder = curves or output / "tensorboard"
    batches = Batches(pack, learned, recipe.sampling, recipe.batch, seed)
    grids = _Grids(output / "samples", *whole_photos(pack, held if len(held) else learned, SHOWN, SHOWN_PX))
    _train_phases(run, players, batches, grids, folder, progress)
    return _finish(run, players, batches, pack, held, folder)


def _packed(photos: Sequence[Photo], cache: Path, preset: Preset, progress: Callable[[Progress], None]) -> Pack:
    def say(done: int, total: int) -> None:
        """Hand it on as progress of the run."""
        progress(Progress(phase="packing", step=done, fraction=done / total, images_s=0, eta_s=0, losses={}))

    return pack_photos(photos, cache, preset.cache_px, preset.sampling.least_colourfulness, say)


def _start(players: Adversaries, start: Path | None, start_discriminator: Path | None) -> None:
    if players.preset.encoder_weights == "imagenet" and start is None:
        load_encoder(players.generator, published_weights(players.preset.architecture.kind))
    pairs = ((players.generator, start), (players.discriminator, start_discriminator))
    for net, path in pairs:
        if path is not None:
            try:
                if net is players.discriminator:
                    check_discriminator(path)
                read_weights(net, path)
            except (WeightsError, WeightsFileError) as error:
                raise TrainingError(f"Cannot start from {path}: {error}") from error
    players.reset_average()


def _resume(run: Run, players: Adversaries) -> bool:
    try:
        found = load_checkpoint(run.output / "checkpoints")
        if found is None:
            return False
        arrays, record = found
        refuse_another(record, run.record(), arrays, players.state())
    except CheckpointError as error:
        raise TrainingError(f"The run in {run.output} does not go on. {error}") from error
    run.step, run.elapsed_s = record["step"], record["elapsed_s"]
    run.phase, run.phase_step = record["phase"], record["phase_step"]
    players.restore(arrays)
    logger.info("goes on at step %d", run.step)
    return True


@dataclasses.dataclass(frozen=True)
class _Grids:
    """Sample grids of the same photos all along, which the net never learns from where there are such."""

    folder: Path
    light: np.ndarray
    colour: np.ndarray

    def draw(self, run: Run, players: Adversaries, curves: Curves) -> None:
        """Write what the mean of the generator makes of them now."""
        self.folder.mkdir(exist_ok=True)
        with players.averaged():
            ours = np.asarray(players.generator(self.light, training=False))
        grid = self.folder / f"step_{run.step:07d}.png"
        training_sheet(grid, self.light, ours, self.colour)
        curves.add_picture(run.step, time.time(), "gray, ours, truth", grid.read_bytes())


def _train_phases(
    run: Run, players: Adversaries, batches: Batches, grids: _Grids, folder: Path, progress: Callable[[Progress], None]
) -> None:
    """All that is left of the phases; the curves go into the folder."""
    History(run.output / "history.csv").rewind(run.step)
    curves = Curves(folder, time.time(), run.step)
    while run.phase < len(run.preset.phases):
        _train_phase(batches, _Listeners(run, players, grids, curves, progress))


def _train_phase(batches: Batches, told: "_Listeners") -> None:
    run, players = told.run, told.players
    phase = run.preset.phases[run.phase]
    _take_steps(run, phase, _begun(run, players, phase), batches, told)
    run.phase, run.phase_step = run.phase + 1, 0
    told.checkpoint()
    with players.averaged():
        write_weights(players.generator, run.output / f"generator_{phase.name}.npz")


def _begun(run: Run, players: Adversaries, phase: Phase) -> Step:
    """The phase's step: from the mean of the phase before, or in the middle of this one after a resume."""
    if run.phase_step == 0 and run.phase > 0:
        players.take_average()
    moments = players.state() if run.phase_step else None
    step = players.begin(phase)
    if moments is not None:
        players.restore(moments)
    return step


@dataclasses.dataclass(frozen=True)
class _Listeners:
    """Whoever hears of a run as it goes on: history, curves, checkpoints, the caller."""

    run: Run
    players: Adversaries
    grids: _Grids
    curves: Curves
    progress: Callable[[Progress], None]

    def __call__(self, phase: Phase, losses: list[tf.Tensor], clock: Clock, pace: dict[str, float]) -> None:
        self.progress(_log(self.run, phase, losses, clock, self.curves, pace))
        if clock.checkpoint_due():
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save where the run is, and how it looks."""
        save_checkpoint(self.run.output / "checkpoints", self.players.state(), self.run.record())
        self.grids.draw(self.run, self.players, self.curves)


def _take_steps(run: Run, phase: Phase, step: Step, batches: Batches, told: _Listeners) -> None:
    clock: Clock | None = None
    losses: list[tf.Tensor] = []
    for light, colour in batches.dataset(run.step, phase.size_px):
        part = run.part()
        if part >= 1.0:
            break
        pace = {"rate": rate_at(phase, part, run.phase_step), "gan_weight": gan_weight_at(phase, part)}
        losses.append(step(light, colour, *(tf.constant(value, tf.float32) for value in pace.values())))
        run.step, run.phase_step = run.step + 1, run.phase_step + 1
        if clock is None:
            losses[0].numpy()  # wait for it: the first step compiles, which is not to eat a short phase's share
            clock = Clock(run)
        run.elapsed_s = clock.elapsed_s()
        if len(losses) == LOG_EVERY_STEPS:
            told(phase, losses, clock, pace)
            losses = []
    if losses and clock:
        told(phase, losses, clock, pace)


def _log(
    run: Run, phase: Phase, losses: list[tf.Tensor], clock: Clock, curves: Curves, pace: dict[str, float]
) -> Progress:
    means = np.mean([loss.numpy() for loss in losses], axis=0)
    if not np.isfinite(means).all():
        raise LossNotFinite(
            f"The loss is no number any more in phase '{phase.name}' at step {run.step}; "
            "start again from the last checkpoint with a smaller rate, or look for broken photos."
        )
    named = dict(zip(LOSSES, (float(v) for v in means), strict=True))
    speed, fraction = clock.images_s(run), run.fraction()
    History(run.output / "history.csv").append(run.step, phase.name, named, speed, run.elapsed_s)
    curves.add(run.step, time.time(), named | pace | {"images_s": speed})
    eta_s = run.elapsed_s * (1 - fraction) / max(fraction, 1e-6)
    return Progress(phase=phase.name, step=run.step, fraction=fraction, images_s=speed, eta_s=eta_s, losses=named)


def _finish(
    run: Run, players: Adversaries, batches: Batches, pack: Pack, held: np.ndarray, curves: Path
) -> TrainResult:
    players.take_average()
    last = run.preset.phases[-1]
    players.settle(last, (batches.at(number, last.size_px)[0] for number in range(SETTLING_BATCHES)))
    weights = run.output / "generator.npz"
    write_weights(players.generator, weights)
    write_weights(players.discriminator, run.output / "discriminator.npz")
    every = max(1, -(-len(held) // max(1, run.preset.holdout_photos)))  # whole sources may hold thousands
    some = held[::every]
    result = calibrate(players.generator, pack, some, run.preset)
    write_version(run, result)
    return TrainResult(
        output=run.output, weights=weights, curves=curves, steps=run.step, photos=len(pack), dropped=pack.dropped,
        calibration=result,
    )  # fmt: skip
