"""The verbs of retraining: a run now or queued, what the last one came to, and the process that does scheduled ones."""

import dataclasses
import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from worker import limits, queue, training_runs
from worker.db import Database, has_tables, made, opened
from worker.errors import DependencyMissing, ExitCode, PhotochromError
from worker.learning_tables import RunState
from worker.settings import TRAINER, Settings, load

if TYPE_CHECKING:
    from worker.retrain import Ended

logger = logging.getLogger(__name__)

#: how often a resuming trainer looks whether another process's lease has run out
LEASE_POLL_S: Final = 5.0


@click.command()
@click.option("--now", is_flag=True, help="Check and run here, in the foreground; needs neither daemon nor broker.")
@click.option("--detach", is_flag=True, help="Queue a run for `photochrom trainer`.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Most training time, with --now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def retrain(now: bool, detach: bool, minutes: float | None, as_json: bool) -> None:
    """Retrain on newly curated photos; without an option, say what the last run came to.

    Does nothing, with exit code 0 and the reason as the last line, when fewer than retrain_least_new photos came or a
    run is under way. An interrupted run is gone on with. Exits 1 when a run failed, 7 when there is no room.
    """
    if now and detach:
        raise click.UsageError("Give --now or --detach, not both.")
    if minutes is not None and not now:
        raise click.UsageError("--minutes is for --now; queued runs take the setting retrain_minutes.")
    settings = load()
    if detach:
        queue.ask_for_retraining()
        click.echo(
            "A run is queued. A `photochrom trainer` takes it; `photochrom up` has one when retrain_cron is set."
        )
        return
    if not now:
        _last(settings, as_json)
        return
    with made(settings.database) as database:
        ended = _foreground(settings, database, minutes)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(ended), indent=2))
    else:
        _tell(ended)
    if ended.state is RunState.FAILED:
        sys.exit(ExitCode.FAILED)


def _foreground(settings: Settings, database: Database, minutes: float | None) -> "Ended":
    """Check what waits for its check, then run; with a progress bar on stderr."""
    from worker import curation
    from worker.retrain import run

    while curation.check_waiting(database, settings):
        pass
    use_device(settings)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[says]}"),
        TimeRemainingColumn(), console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("starting", total=1.0, says="")
        return run(
            settings, database, trigger="now", minutes=minutes,
            show=lambda phase, done, says: bar.update(task, description=phase, completed=done, says=says),
        )  # fmt: skip


def use_device(settings: Settings) -> None:
    """Choose where training computes, before TensorFlow touches a GPU.

    Raises:
        DependencyMissing: a GPU is asked for and there is none.
    """
    from model import device

    try:
        device.choose(settings.device)
    except device.DeviceError as error:
        raise DependencyMissing(str(error)) from error


def _tell(ended: "Ended") -> None:
    if ended.version:
        click.echo(f"Run {ended.run_id} made version {ended.version}: {str(ended.state).replace('_', ' ')}.")
    if ended.state is RunState.NEEDS_APPROVAL:
        click.echo(
            f"Look at it (photochrom models show {ended.version}), then: photochrom models promote {ended.version}"
        )
    click.echo(ended.reason)


def _last(settings: Settings, as_json: bool) -> None:
    status = None
    if has_tables(settings.database):
        with made(settings.database) as database, database.reading() as session:
            status = training_runs.latest(session)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(status) if status else None, indent=2, default=str))
    elif status is None:
        click.echo("There was no run yet. Start one with `photochrom retrain --now`.")
    else:
        click.echo(training_runs.sentence(status))


@click.command()
def trainer() -> None:
    """Do scheduled and queued retraining runs, one at a time, until SIGTERM; colours nothing."""
    settings = load()
    limits.hand_down_no_capability()
    with opened(settings.database):
        pass  # refused here and at once, not by its child processes with every message
    os.environ[TRAINER] = "1"  # its child processes load nothing to colour with
    queue.app.worker_main(
        ["worker", "--queues", queue.TRAIN_QUEUE, "--hostname", f"trainer-{os.getpid()}@%h", "--concurrency", "1",
         "--max-tasks-per-child", "1",  # what a run held, a GPU's memory above all, is given back when it ends
         "--loglevel", settings.log_level, "--without-gossip", "--without-mingle"]
    )  # fmt: skip


def do(trigger: str) -> None:
    """What the queue asks for; nothing is raised for what the run's row says."""
    from worker.retrain import run

    settings = load()
    use_device(settings)
    with made(settings.database) as database:
        if trigger == queue.RESUME and not _left_over(database):
            return
        try:
            ended = run(settings, database, trigger=trigger)
        except PhotochromError as error:
            logger.warning("retraining_stopped", extra={"why": str(error)})
            return
    logger.warning("retraining_ended", extra={"run": ended.run_id, "state": ended.state, "reason": ended.reason})


def _left_over(database: Database) -> bool:
    """Whether there is an interrupted run to go on with; waits out the lease of a process on a host that is gone."""
    give_up_s = time.monotonic() + training_runs.LONGEST_LEASE_S + LEASE_POLL_S
    while True:
        with database.reading() as session:
            interrupted = training_runs.interrupted(session)
        if interrupted is not False or time.monotonic() > give_up_s:
            return bool(interrupted)
        time.sleep(LEASE_POLL_S)
