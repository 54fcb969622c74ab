"""The verbs that colour, and what all verbs that need the net have in common.

`daemon.cli` names verbs by string, so that nothing else loads TensorFlow.
"""

import contextlib
import importlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from worker import limits
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
from worker.tables import display

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
def model_errors() -> Iterator[None]:
    """The model's own errors, as this command's: one sentence and an exit code."""
    load_tensorflow()
    from model.config import ConfigError
    from model.encoder import EncoderError
    from model.lpips import LpipsError
    from model.photos import PhotosError
    from model.registry import WeightsError
    from model.train import TrainingError

    try:
        yield
    except PhotosError as error:
        raise PhotosUnusable(str(error)) from error
    except (EncoderError, LpipsError) as error:
        raise DependencyMissing(str(error)) from error
    except WeightsError as error:
        raise WeightsBroken(str(error)) from error
    except (ConfigError, TrainingError) as error:
        raise TrainingStopped(str(error)) from error


class _TimeLeft(TimeRemainingColumn):
    """The time left as h:mm:ss: the task's field `eta_s` where it knows by itself, in seconds, else as the bar goes."""

    def render(self, task: Task) -> Text:
        """What stands in the column."""
        eta_s: float | None = task.fields.get("eta_s")
        if eta_s is None:
            return super().render(task)
        minutes, seconds = divmod(round(eta_s), 60)
        return Text(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}", style="progress.remaining")


def bar(*columns: Any, drawn: bool = True) -> Progress:
    """A progress bar on stderr: stdout is for data. What has much to say leaves the bar itself out."""
    bars = (BarColumn(),) if drawn else ()
    return Progress(TextColumn("{task.description}"), *bars, *columns, _TimeLeft(), console=Console(stderr=True))


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
    with bar(MofNCompleteColumn()) as shown:
        for file in shown.track(files, description="colouring"):
            try:
                made = deriving.colorize_file(colorizer, settings, file, output, {"force": force})
                click.echo(f"{display(os.fsencode(file))} → {display(os.fsencode(made))}")
            except PhotochromError as error:
                refused += 1
                click.echo(f"photochrom: {display(os.fsencode(file))}: {error}", err=True)
    if refused:
        sys.exit(ExitCode.FAILED)


@click.command()
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), help="Where the net runs [default: auto].")
@click.option("--processes", type=click.IntRange(1), help="How many scans are worked on at a time [default: 1].")
def worker(device: str | None, processes: int | None) -> None:
    """Take jobs from the queue and colour scans, until SIGTERM (the job in hand is finished first)."""
    settings = choose(device=device, worker_processes=processes)
    limits.hand_down_no_capability()
    from worker import queue
    from worker.attention import SchemaWatch
    from worker.db import SchemaGuard, open_database, refuse_unmigrated

    database = open_database(settings.database)
    refuse_unmigrated(database)
    watch = SchemaWatch(SchemaGuard(database))
    _refuse_to_start_without(settings)
    watch.start()
    # inherited by the colouring processes, whose claims begin with it; `up` has set it already
    name = os.environ.setdefault("PHOTOCHROM_WORKER", f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")
    queue.app.worker_main(
        ["worker", "--queues", queue.COLORIZE_QUEUE, "--hostname", f"{name}@%h", "--loglevel", settings.log_level,
         "--without-gossip", "--without-mingle"]
    )  # fmt: skip
    if watch.refusal is not None:
        raise watch.refusal


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
    with model_errors():
        from model.registry import load_generator, shipped

        version = shipped()
        load_generator(version)
    return f"version {version.name} loads, sha256 {version.weights_sha256[:12]}… as recorded"
