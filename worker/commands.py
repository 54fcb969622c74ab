"""The verbs that need the net or pixels. `daemon.cli` names them by string, so that nothing else loads TensorFlow."""

import contextlib
import dataclasses
import importlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from worker.errors import (
    DependencyMissing,
    ExitCode,
    OutputUnwritable,
    PhotochromError,
    PhotosUnusable,
    TrainingStopped,
    WeightsBroken,
)
from worker.settings import Settings, choose, load

if TYPE_CHECKING:
    from model.evaluate import EvaluationReport

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)


def load_tensorflow() -> None:
    """Import TensorFlow without its greetings, which come from C++ before any of its log levels is in force."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # for what it says later
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _model_errors() -> Iterator[None]:
    """The model's own errors, as this command's: one sentence and an exit code."""
    load_tensorflow()
    from model.config import ConfigError
    from model.encoder import EncoderError
    from model.photos import PhotosError
    from model.registry import WeightsError
    from model.train import TrainingError

    try:
        yield
    except PhotosError as error:
        raise PhotosUnusable(str(error)) from error
    except EncoderError as error:
        raise DependencyMissing(str(error)) from error
    except WeightsError as error:
        raise WeightsBroken(str(error)) from error
    except (ConfigError, TrainingError) as error:
        raise TrainingStopped(str(error)) from error


def _bar(*columns: Any) -> Progress:
    """A progress bar on stderr: stdout is for data."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn(), console=Console(stderr=True)
    )


@click.command()
@click.argument("files", metavar="FILE…", type=FILE, nargs=-1, required=True)
@click.option("--output", type=FOLDER, required=True, help="Folder for the derivatives; made if missing.")
@click.option("--force", is_flag=True, help="Colour also what is in colour already, bitonal or blank.")
def colorize(files: tuple[Path, ...], output: Path, force: bool) -> None:
    """Colour FILES now, without queue or database. Originals are only read.

    Exits 0 when every file was coloured, else 1 after naming those that were not.
    """
    load_tensorflow()
    from worker import deriving, scans, serving

    settings = load()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"{output} cannot be made ({error.strerror}). Name another with --output.") from error
    scans.set_up_libvips(threads=os.cpu_count() or 1)
    colorizer = serving.colorizer_by_record(settings)
    refused = 0
    with _bar(MofNCompleteColumn()) as bar:
        for file in bar.track(files, description="colouring"):
            try:
                made = deriving.colorize_file(colorizer, settings, file, output, {"force": force})
                click.echo(f"{file} → {made}")
            except PhotochromError as error:
                refused += 1
                click.echo(f"photochrom: {file}: {error}", err=True)
    if refused:
        sys.exit(ExitCode.FAILED)


@click.command()
@click.argument("photos", metavar="PHOTOS…", type=FILE, nargs=-1, required=True)
@click.option("--output", type=FOLDER, required=True, help="Folder of the run: weights, config, history, checkpoints.")
@click.option("--preset", default="default", show_default=True, help="Recipe: default, textbook, …")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Training time [default: the preset's].")
@click.option("--steps", type=click.IntRange(1), help="Training steps, instead of a time.")
@click.option("--sample", type=click.IntRange(1), help="Draw so many photos from all that are found.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides weights, draw and batches.")
@click.option("--start", type=FILE, help="Generator weights (npz) to start from.")
@click.option("--start-discriminator", type=FILE, help="Discriminator weights (npz) to start from.")
@click.option("--cache", type=FOLDER, help="Folder for decoded photos, to share between runs [default: in --output].")
@click.option("--fresh", is_flag=True, help="Begin anew, even where the output folder holds a checkpoint.")
def train(
    photos: tuple[Path, ...],
    output: Path,
    preset: str,
    minutes: float | None,
    steps: int | None,
    sample: int | None,
    seed: int,
    start: Path | None,
    start_discriminator: Path | None,
    cache: Path | None,
    fresh: bool,
) -> None:
    """Train a generator on colour PHOTOS: folders of any depth, or the Image Colorization set's .npy arrays.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from model.run import Progress as Step
    from model.train import train as run

    with _model_errors(), _bar(TaskProgressColumn(), TextColumn("{task.fields[says]}")) as bar:
        task = bar.add_task("starting", total=1.0, says="")

        def show(step: Step) -> None:
            losses = "  ".join(f"{name} {value:.3f}" for name, value in step.losses.items())
            says = f"step {step.step}  {step.images_s:.0f} images/s  {losses}"
            bar.update(task, description=step.phase, completed=step.fraction, says=says)

        result = run(
            photos, output, preset=preset, minutes=minutes, steps=steps, sample=sample, seed=seed, resume=not fresh,
            start=start, start_discriminator=start_discriminator, cache=cache, progress=show,
        )  # fmt: skip
    for field in dataclasses.fields(result):
        click.echo(f"{field.name}: {getattr(result, field.name)}")
    click.echo(f"Next: photochrom evaluate PHOTOS --weights {output}")


@click.command()
@click.argument("folder", metavar="DIR", type=FILE)
@click.option("--weights", type=FOLDER, help="Folder of a version or of a training run [default: the shipped one].")
@click.option("--sheet", type=FILE, help="Write a contact sheet (gray | ours | truth) here, PNG.")
@click.option("--worst", type=FILE, help="Write the 20 worst photos here, PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: overall, per category, per photo.")
def evaluate(folder: Path, weights: Path | None, sheet: Path | None, worst: Path | None, as_json: bool) -> None:
    """Score a generator on the colour photos in DIR, which it must never have seen.

    Per category: by a manifest.csv (file, category) in DIR or beside it, else by subfolder, else by file prefix.
    """
    from model.evaluate import evaluate as judge
    from model.registry import open_version

    with _model_errors(), _bar(MofNCompleteColumn()) as bar:
        task = bar.add_task("judging", total=None)
        version = open_version(weights) if weights else None
        report = judge(
            folder,
            version,
            sheet=sheet,
            worst_sheet=worst,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        click.echo(_table(report))
    for name, reason in report.skipped.items():
        click.echo(f"photochrom: skipped {name}: {reason}", err=True)


def _table(report: "EvaluationReport") -> str:
    """Figures as columns; the gray baseline, every category and the whole set as rows."""
    scores = {"gray (no colour)": report.gray, **report.categories, "all": report.overall}
    names = list(report.overall.figures)
    lines = [f"{'':<18} {'photos':>6} " + " ".join(f"{name:>12}" for name in names)]
    for name, score in scores.items():
        figures = " ".join(f"{score.figures[figure]:>12.4f}" for figure in names)
        lines.append(f"{name:<18} {score.photos:>6} {figures}")
    return "\n".join(lines)


@click.command()
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), help="Where the net runs [default: auto].")
@click.option("--processes", type=click.IntRange(1), help="How many scans are worked on at a time [default: 1].")
def worker(device: str | None, processes: int | None) -> None:
    """Take jobs from the queue and colour scans, until SIGTERM (the job in hand is finished first)."""
    settings = choose(device=device, worker_processes=processes)
    from worker import queue
    from worker.db import open_database, refuse_unmigrated

    database = open_database(settings.database)
    refuse_unmigrated(database)
    database.dispose()
    _refuse_to_start_without(settings)
    # inherited by the colouring processes, whose claims begin with it; `up` has set it already
    name = os.environ.setdefault("PHOTOCHROM_WORKER", f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")
    queue.app.worker_main(
        ["worker", "--queues", queue.COLORIZE_QUEUE, "--hostname", f"{name}@%h", "--loglevel", settings.log_level,
         "--without-gossip", "--without-mingle"]
    )  # fmt: skip


def _refuse_to_start_without(settings: Settings) -> None:
    """See that there is a version to serve and the device that was asked for; this process never loads TensorFlow.

    Raises:
        WeightsBroken: not one version has the weights that it was published with.
        DependencyMissing: a GPU is asked for and there is none.
    """
    from model.registry import WeightsError, check_weights
    from model.store import Store

    store, problems = Store(settings.models), []
    for name in store.names():
        try:
            check_weights(store.open(name))
            break
        except WeightsError as error:
            problems.append(str(error))
    else:
        raise WeightsBroken(" ".join(problems) or "There are no weights. Install Photochrom again.")
    if settings.device == "gpu":
        asked = subprocess.run(
            [sys.executable, "-c", "from model import device; device.choose('gpu')"], capture_output=True, text=True
        )
        if asked.returncode:
            raise DependencyMissing(asked.stderr.strip().rpartition("\n")[2].partition(": ")[2])


def examine_weights() -> str:
    """Load the shipped generator as a worker would; what it is, in one line (for `photochrom doctor`).

    Raises:
        WeightsBroken: it does not load.
    """
    with _model_errors():
        from model.registry import load_generator, shipped

        version = shipped()
        load_generator(version)
    return f"version {version.name} loads, sha256 {version.weights_sha256[:12]}… as recorded"
