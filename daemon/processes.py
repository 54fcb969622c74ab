"""The verbs that run something: the supervisor and its parts."""

import os
import sys
from pathlib import Path

import click

from worker import log
from worker.settings import Settings, load

FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--inbox", type=FOLDER, help="The folder to watch [default: ./scans].")
@click.option("--output", type=FOLDER, help="Where derivatives go [default: ./colorized].")
@click.option("--drain", is_flag=True, help="Stop when everything that is there now has been dealt with.")
def up(inbox: Path | None, output: Path | None, drain: bool) -> None:
    """Watch, queue and colour on this machine, until Ctrl-C.

    Starts broker, database, worker, scheduler and watcher, restarts what dies, and shows what happens. With --drain
    it exits by itself: 0 nothing was quarantined, 3 something was, 4 some files could not be taken.
    """
    from daemon.up import up as run

    sys.exit(run(_settings(inbox=inbox, output=output), drain=drain, out=sys.stdout))


@click.command("watch")
def watch_() -> None:
    """Watch the roots, submit and dispatch jobs, take back what dead workers held; until SIGTERM."""
    from daemon.watch import watch

    settings = load()
    log.configure(settings.log_level)
    watch(settings)


@click.command()
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), help="Where the net runs [default: auto].")
@click.option("--processes", type=click.IntRange(1), help="How many scans are worked on at a time [default: 1].")
def worker(device: str | None, processes: int | None) -> None:
    """Take jobs from the queue and colour scans, until SIGTERM (the job in hand is finished first)."""
    settings = _settings(device=device, worker_processes=processes)
    from worker import queue
    from worker.db import open_database, refuse_unmigrated

    database = open_database(settings.database)
    refuse_unmigrated(database)
    database.dispose()
    name = os.environ.get("PHOTOCHROM_WORKER", f"worker-{os.getpid()}")
    queue.app.worker_main(
        ["worker", "--queues", queue.COLORIZE_QUEUE, "--hostname", f"{name}@%h", "--loglevel", settings.log_level,
         "--without-gossip", "--without-mingle"]
    )  # fmt: skip


@click.command()
def beat() -> None:
    """Send periodic tasks when they are due, until SIGTERM. One per installation."""
    settings = load()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    log.configure(settings.log_level)
    from worker import queue

    queue.app.Beat(loglevel=settings.log_level, quiet=True, pidfile=None).run()


@click.command("migrate")
def migrate_() -> None:
    """Bring the database to this version's schema. `photochrom up` does it by itself."""
    from worker.db import migrate

    settings = load()
    migrate(settings.database)
    click.echo("The database is at this version's schema. Next: photochrom watch, photochrom worker, photochrom beat.")


def _settings(**overrides: object) -> Settings:
    """The settings in force; what the command line said goes into the environment, for the processes we start."""
    for name, value in overrides.items():
        if value is not None:
            os.environ[f"PHOTOCHROM_{name.upper()}"] = os.path.abspath(value) if isinstance(value, Path) else str(value)
    return load()
