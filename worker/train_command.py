"""The verb `train`: a generator from colour photos, with a line of progress and figures at the end."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.progress import Progress, TaskProgressColumn, TextColumn

from worker.commands import FILE, FOLDER, bar, model_errors
from worker.errors import OutputUnwritable, TrainingStopped

if TYPE_CHECKING:
    from model.config import Preset
    from model.run import Progress as Step
    from model.train import TrainResult


@contextlib.contextmanager
def _refused(*written: Path) -> Iterator[None]:
    """What the system refuses, as this command's error: 7 where it is about a folder that is written, else 1."""
    try:
        yield
    except OSError as error:
        place = Path(os.fsdecode(error.filename or written[0]))
        ours = any(place.is_relative_to(folder) or folder.is_relative_to(place) for folder in written)
        kind, why = OutputUnwritable if ours else TrainingStopped, error.strerror or error
        raise kind(f"{place}: {why}. Mend it, then give the same command to go on.") from error


def _preset(_context: click.Context, _option: click.Parameter, name: str) -> "Preset":
    from model.config import ConfigError, preset

    try:
        return preset(name)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("photos", metavar="PHOTOS…", type=FILE, nargs=-1, required=True)
@click.option("--output", type=FOLDER, required=True, help="Folder of the run: weights, config, history, checkpoints.")
@click.option(
    "--preset",
    default="default",
    show_default=True,
    callback=_preset,
    help="default, vivid, finetune, adversarial or textbook.",
)
@click.option(
    "--without",
    type=click.Choice(["encoder", "warmup", "gan", "film"]),
    multiple=True,
    help="Switch off a part of the preset, to measure its worth; repeatable. encoder: no ImageNet weights. warmup: "
    "GAN + L1 from step 0. gan: L1 alone, for the whole time. film: no simulation of old film.",
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Training time [default: the preset's].")
@click.option("--steps", type=click.IntRange(1), help="Training steps, instead of a time.")
@click.option("--sample", type=click.IntRange(1), help="Draw so many photos from all that are found.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides weights, draw and batches.")
@click.option("--start", type=FILE, help="Generator weights (npz) to start from.")
@click.option("--start-discriminator", type=FILE, help="Discriminator weights (npz) to start from.")
@click.option("--cache", type=FOLDER, help="Folder for decoded photos, to share between runs [default: in --output].")
@click.option(
    "--hold-out",
    multiple=True,
    metavar="SOURCE",
    help="Keep this source out of training, calibrate by it: the name of one of several PHOTOS, or a subfolder of one.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "mixed_float16", "mixed_bfloat16"]),
    default="auto",
    help="What the generator computes in [default: mixed_float16 on a GPU, else float32].",
)
@click.option("--fresh", is_flag=True, help="Begin anew, even where the output folder holds a checkpoint.")
def train(
    photos: tuple[Path, ...],
    output: Path,
    preset: "Preset",
    without: tuple[str, ...],
    minutes: float | None,
    steps: int | None,
    sample: int | None,
    seed: int,
    start: Path | None,
    start_discriminator: Path | None,
    cache: Path | None,
    hold_out: tuple[str, ...],
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"],
    fresh: bool,
) -> None:
    """Train a generator on colour PHOTOS: folders of any depth, or the Image Colorization set's .npy arrays.

    Small sources are drawn more often than by chance. Each of several PHOTOS is a source; of one, each subfolder.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from model.ablation import without as reduced
    from model.train import train as run

    columns = (TaskProgressColumn(), TextColumn("{task.fields[says]}"))
    with model_errors(), _refused(output, cache or output), bar(*columns, drawn=False) as shown:
        result = run(
            photos, output, preset=reduced(preset, without), minutes=minutes, steps=steps, sample=sample,
            seed=seed, resume=not fresh, precision=precision, start=start, start_discriminator=start_discriminator,
            cache=cache, holdout_sources=hold_out, progress=_line(shown),
        )  # fmt: skip
    _tell(result)


def _line(shown: Progress) -> "Callable[[Step], None]":
    """What shows a step as the one line of progress."""
    task = shown.add_task("starting", total=1.0, says="")

    def show(step: "Step") -> None:
        """Replace the line."""
        says = f"step {step.step} {step.images_s:.0f}/s {_told(step.losses)}"
        eta_s = step.eta_s if step.losses else None  # photos being packed: the bar's own speed tells
        shown.update(task, description=step.phase, completed=step.fraction, says=says, eta_s=eta_s)

    return show


def _told(losses: dict[str, float]) -> str:
    """A step's losses so short that the whole line of progress fits into 80 columns: real/fake of the discriminator."""
    if not losses:
        return ""
    adversarial = f" gan {losses['g_gan']:.3f}" if losses["g_gan"] else ""
    critic = f" d {losses['d_real']:.3f}/{losses['d_fake']:.3f}" if losses["d_real"] else ""
    return f"l1 {losses['g_l1']:.3f}{adversarial}{critic}"


def _tell(result: "TrainResult") -> None:
    """What a finished run left where, what it measured, and what to do next."""
    for field in ("output", "weights", "steps", "photos"):
        click.echo(f"{field}: {getattr(result, field)}")
    if result.dropped:
        click.echo(f"dropped: {len(result.dropped)} photos, named with the reason in {result.output / 'dropped.tsv'}")
    measured = dataclasses.asdict(result.calibration)
    click.echo("calibration: " + ", ".join(f"{field} {value:.4g}" for field, value in measured.items()))
    click.echo(f"Curves and samples: tensorboard --logdir {result.curves} (pip install tensorboard)")
    click.echo(f"Next: photochrom evaluate PHOTOS --weights {result.output}")
