"""The command `photochrom`. Verbs are named by string and loaded when used: `--help` loads nothing heavy."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from worker.errors import PhotochromError

#: verb → (where its command lives, what it does)
VERBS: Final[dict[str, tuple[str, str]]] = {
    "up": ("daemon.processes:up", "Watch, queue and colour on this machine: all parts in one command."),
    "status": ("daemon.questions:status", "What is watched, waiting, being worked on, done."),
    "why": ("daemon.questions:why", "One sentence about any path: what became of it, and why."),
    "jobs": ("daemon.questions:jobs_", "List jobs."),
    "quarantine": ("daemon.quarantine:quarantine", "What was given up on: list, show, retry, dismiss."),
    "roots": ("daemon.root_commands:roots", "Accept a watched folder as it is; let go scans that are gone."),
    "health": ("daemon.health:health", "Is everything moving? The exit code tells monitoring."),
    "selftest": ("daemon.selftest:selftest", "Try on your own share what works, and how it will be watched."),
    "retry": ("daemon.questions:retry", "Send jobs back into the queue: quarantined, skipped, result lost."),
    "colorize": ("worker.commands:colorize", "Colour files now, without queue or database."),
    "verify": ("worker.verify_command:verify", "A derivative's lightness against its master's; with --all, all bytes."),
    "train": ("worker.train_command:train", "Train a generator on a folder of colour photos."),
    "evaluate": ("worker.evaluate_command:evaluate", "Score a generator on a folder of colour photos."),
    "models": ("worker.model_commands:models", "Versions of the generator: list, promote, roll back, …"),
    "recolor": ("worker.model_commands:recolor", "Colour scans again with another version."),
    "curated": ("worker.curated_commands:curated_", "Colour photos to learn from: list, accept, reject, …"),
    "retrain": ("daemon.curated_look:retrain", "Retrain on newly curated photos, judge, promote or not."),
    "watch": ("daemon.processes:watch_", "Only the watcher and dispatcher, for a host of its own."),
    "worker": ("worker.commands:worker", "Only a colouring worker, for a host of its own."),
    "trainer": ("worker.retrain_commands:trainer", "Only the process that does scheduled retraining."),
    "beat": ("daemon.processes:beat", "Only the scheduler of periodic tasks."),
    "migrate": ("daemon.processes:migrate_", "Bring the database to this version's schema."),
    "doctor": ("daemon.questions:doctor", "Check settings, folders, database, broker, weights."),
    "config": ("daemon.questions:config", "Print the settings in force."),
}


def _use_state_dir(_context: click.Context, _option: click.Parameter, value: Path | None) -> None:
    """The environment is how settings reach every part, also processes that we start."""
    if value is not None:
        os.environ["PHOTOCHROM_STATE_DIR"] = os.path.abspath(value)


def _state_dir_option() -> click.Option:
    return click.Option(
        ["--state-dir"],
        type=click.Path(path_type=Path),
        callback=_use_state_dir,
        expose_value=False,
        help="Database, broker and logs of this installation [default: ./.photochrom].",
    )


class Verbs(click.Group):
    """Loads a verb when it is used; turns our errors into one sentence and an exit code."""

    def main(self, *arguments: Any, **named: Any) -> Any:
        """As click's, with all three standard streams there."""
        _open_what_is_closed()
        return super().main(*arguments, **named)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order a newcomer needs them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module; every verb also takes --state-dir."""
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        for verb in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
            if not any(parameter.name == "state_dir" for parameter in verb.params):
                verb.params.append(_state_dir_option())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of verbs, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, help_) for verb, (_, help_) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except PhotochromError as error:
            _end(ctx, error, error)
        except Exception as error:
            told = _from_database(error)
            if told is None:
                raise  # a fault of ours, with its traceback
            _end(ctx, told, error)


def _open_what_is_closed() -> None:
    """Where a standard stream is closed (`>&-`), the next file to be opened would get its number, and our words."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _from_database(error: Exception) -> PhotochromError | None:
    """An error of the database in one sentence; None for every other error."""
    if "sqlalchemy" not in sys.modules:  # nor does looking whether it is one load it
        return None
    from sqlalchemy.exc import DBAPIError

    from worker.database_errors import in_words

    return in_words(error) if isinstance(error, DBAPIError) else None


def _end(ctx: click.Context, told: PhotochromError, error: Exception) -> NoReturn:
    """One sentence and the exit code; with the log level `debug` the traceback before it."""
    if _debugging():
        traceback.print_exception(error)
    click.echo(f"photochrom: {told}", err=True)
    ctx.exit(told.exit_code)


def _debugging() -> bool:
    from worker.settings import load

    try:
        return load().log_level == "debug"
    except PhotochromError:  # the settings are what is wrong
        return False


@click.group(
    cls=Verbs,
    params=[_state_dir_option()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `photochrom up`, then drop scans into ./scans. Every verb has its own --help.",
)
@click.version_option(package_name="photochrom")
def main() -> None:
    """Colour for whole archives of black-and-white scans, unattended. Originals are never touched."""


if __name__ == "__main__":
    main(prog_name="photochrom")
