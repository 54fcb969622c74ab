"""The verbs that run something: the supervisor and its parts."""

import sys
from pathlib import Path

import click

from worker import log
from worker.errors import UnknownSetting
from worker.settings import choose, load

FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--inbox", type=FOLDER, help="The folder to watch [default: ./scans].")
@click.option("--output", type=FOLDER, help="Where derivatives go [default: ./colorized].")
@click.option("--curated", type=FOLDER, help="Colour photos to learn from [default: ./curated where it is there].")
@click.option("--drain", is_flag=True, help="Stop when everything that is there now has been dealt with.")
def up(inbox: Path | None, output: Path | None, curated: Path | None, drain: bool) -> None:
    """Watch, queue and colour on this machine, until Ctrl-C.

    Starts broker, database, worker, scheduler and watcher, restarts what dies, and shows what happens. With --drain
    it exits by itself: 0 nothing was quarantined, 3 something was, 4 some files could not be taken.
    """
    from daemon.up import up as run

    settings = choose(inbox=inbox, output=output, curated=curated)
    if settings.roots and (inbox or output):
        raise UnknownSetting(
            "--inbox and --output name one folder, but the settings have [[roots]]. "
            "Leave the options out, or take the [[roots]] out of photochrom.toml."
        )
    sys.exit(run(settings, drain=drain, out=sys.stdout))


@click.command("watch")
def watch_() -> None:
    """Watch the roots, submit and dispatch jobs, take back what dead workers held; until SIGTERM."""
    from daemon.watch import watch

    settings = load()
    log.configure(settings.log_level)
    watch(settings)


@click.command()
def beat() -> None:
    """Send periodic tasks when they are due, until SIGTERM. One per installation."""
    settings = load()
    log.configure(settings.log_level)
    from celery.signals import before_task_publish

    from worker import fault, queue

    before_task_publish.connect(lambda **_: fault.point("scheduled"), weak=False)
    queue.app.Beat(loglevel=settings.log_level, quiet=True, pidfile=None).run()


@click.command("migrate")
def migrate_() -> None:
    """Bring the database to this version's schema. `photochrom up` does it by itself."""
    from worker.db import migrate

    settings = load()
    migrate(settings.database)
    click.echo("The database is at this version's schema. Next: photochrom watch, photochrom worker, photochrom beat.")
