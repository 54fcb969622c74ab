"""What `photochrom up` tells the person in front of it: pure sentences, and a terminal with one rewritten line."""

import contextlib
import logging
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from daemon.roots import is_folder, mount_in_time, watch_mode
from worker.errors import ExitCode
from worker.jobs import PUBLISHED
from worker.mounts import Mount
from worker.overview import Overview
from worker.settings import RootSettings, Settings

PLAIN_INTERVAL_S = 5.0  # most often a progress line is printed where it cannot be rewritten
OFFLINE_S = 30.0  # a root that is out of reach for so long is not waited for
SHOWN = 10  # most paths named in a summary


class Console:
    """Lines, and below them a progress line: rewritten in place on a terminal, printed on change elsewhere.

    A terminal that went away is no reason to stop working: write errors are ignored.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._progress = ""
        self._printed_s = -float("inf")

    def say(self, text: str) -> None:
        """Prints lines above the progress line."""
        if self._is_terminal and self._progress:
            self._write("\r\x1b[K" + text + "\n" + self._progress)
        else:
            self._write(text + "\n")

    def progress(self, text: str, now_s: float) -> None:
        """Shows how far things are; `now_s` is a monotonic time in seconds."""
        if text == self._progress:
            return
        if self._is_terminal:
            self._progress = text[: shutil.get_terminal_size().columns - 1]
            self._write("\r\x1b[K" + self._progress)
        elif now_s - self._printed_s >= PLAIN_INTERVAL_S:
            self._progress, self._printed_s = text, now_s
            self._write(text + "\n")

    def end_progress(self) -> None:
        """Leaves the progress line as it is and goes on below it."""
        if self._is_terminal and self._progress:
            self._write("\n")
        self._progress = ""

    def _write(self, text: str) -> None:
        encoding = self._out.encoding or "utf-8"
        with contextlib.suppress(OSError, ValueError):
            self._out.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._out.flush()


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.say(record.getMessage())


@contextlib.contextmanager
def logged_to(console: Console) -> Iterator[None]:
    """Shows this process's own warnings on the console, above the progress line."""
    handler = _ConsoleHandler(console)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def program() -> str:
    """How this program is called from another shell: its path where it is a virtual environment's, else its name.

    `make run` puts the environment on its own PATH; the person's second terminal does not have it there.
    """
    found, called = shutil.which("photochrom"), Path(sys.argv[0])
    beside = Path(sys.executable).with_name("photochrom")
    itself = called if called.name == "photochrom" else beside
    if not itself.exists():
        return f"{shlex.quote(sys.executable)} -m daemon.cli"
    if sys.prefix == sys.base_prefix and found and Path(found).samefile(itself):
        return "photochrom"
    return shlex.quote(str(itself.absolute()))


def command(settings: Settings, verb: str) -> str:
    """A command line for a second terminal, with the state directory in it."""
    return f"{program()} {verb} --state-dir {shlex.quote(str(settings.state_dir))}"


def banner(settings: Settings, pid: int, *, drain: bool) -> str:
    """What is watched and how, where results go, how to stop, and how to ask from a second terminal."""
    lines = ["Photochrom works through:" if drain else "Photochrom watches:"]
    lines += [f"  {_root_line(root, mount_in_time(root.path))}" for root in settings.watched]
    outputs = ", ".join(str(root.output) for root in settings.watched)
    if settings.curated_root:
        lines.append(f"  {settings.curated_root.path}  (curated photos to learn from)")
    lines += [
        f"Results:  {outputs}",
        f"Logs:     {settings.state_dir / 'logs'}",
        f"Status:   {command(settings, 'status --watch')}   (in a second terminal)",
        f"Stop:     Ctrl-C here, or kill {pid}",
    ]
    return "\n".join(lines)


def _root_line(root: RootSettings, mount: Mount) -> str:
    if not is_folder(root.path):
        return f"{root.path}  (not there now; taken when it appears)  →  {root.output}"
    how = "events and scans" if watch_mode(root, mount) == "events" else "scans only"
    return f"{root.path}  ({how}, {mount.fs_type or 'unknown file system'})  →  {root.output}"


def found(overview: Overview, settings: Settings) -> str:
    """What the first complete look at the folders found."""
    inboxes = {root.key: str(root.path) for root in settings.watched}
    files = sum(root.files for root in overview.roots if root.name in inboxes)
    if not files:
        return f"Found no files yet. Drop scans into {', '.join(inboxes.values())}."
    counts = {"to work on": _unfinished(overview)}
    counts |= {word: overview.files.get(word, 0) for word in ("ignored", "blocked")}
    counts["dealt with before"] = max(0, files - sum(counts.values()))
    told = [f"{count} {word}" for word, count in counts.items() if count or word == "to work on"]
    return f"Found {_files(files)}: {', '.join(told)}."


def progress_line(overview: Overview) -> str:
    """Counts per state and the rate, short enough for one line of a terminal."""
    counts = {**overview.jobs, "settling": overview.files.get("settling", 0)}
    always = ("done", "queued", "running", "settling", "needs_review", "quarantined")
    extra = [word for word in ("duplicate", "skipped") if counts.get(word)]
    blocked = [f"blocked {count}"] if (count := overview.files.get("blocked", 0)) else []
    shown = [f"{word.replace('_', ' ')} {counts.get(word, 0)}" for word in (*always, *extra)] + blocked
    return " | ".join([*shown, f"{overview.per_minute}/min"])


def offline_roots(overview: Overview) -> list[tuple[str, str]]:
    """(path, reason) of watched folders that were out of reach all the time."""
    missed = [root for root in overview.roots if root.state == "offline" and root.name in overview.unscanned]
    return [(root.path, root.reason or "offline") for root in missed]


def is_drained(overview: Overview, ran_s: float) -> bool:
    """Whether every reachable root was scanned, and nothing is settling, queued or running.

    `ran_s` is how long this run has been up, in seconds: at first, `offline` is what an earlier run has left there.
    """
    return not _unfinished(overview) and not overview.curated.get("pending") and is_scanned(overview, ran_s)


def is_scanned(overview: Overview, ran_s: float) -> bool:
    """Whether every reachable root was; `ran_s` as in `is_drained`."""
    offline = {root.name for root in overview.roots if root.state == "offline" and ran_s > OFFLINE_S}
    return not set(overview.unscanned) - offline


def drained_exit(overview: Overview) -> ExitCode:
    """The exit code of a run that worked everything off: quarantined before not taken."""
    if overview.ended_since.get("quarantined", 0):
        return ExitCode.SOME_QUARANTINED
    if overview.files.get("blocked", 0) or offline_roots(overview):
        return ExitCode.SOME_NOT_TAKEN
    return ExitCode.OK


def summary(
    overview: Overview,
    settings: Settings,
    quarantined: Sequence[tuple[int, str, str]],
    blocked: Sequence[tuple[str, str]],
) -> str:
    """What this run did, where it lies, what went wrong with which file, and what to do next."""
    ended = [f"{count} {state.replace('_', ' ')}" for state, count in sorted(overview.ended_since.items()) if count]
    lines = [f"In this run: {', '.join(ended) or 'nothing to do'}."]
    if not PUBLISHED.isdisjoint(overview.ended_since):
        lines.append(f"Results are in {', '.join(str(root.output) for root in settings.watched)}.")
    if waiting := _unfinished(overview):
        lines.append(f"{_files(waiting)} still to be done: the next start goes on there.")
    lines += _named("Quarantined", [(path, reason) for _, path, reason in quarantined])
    lines += _named("Not taken", [*offline_roots(overview), *blocked])
    if quarantined:
        lines.append(f"Next: {command(settings, 'jobs --state quarantined')}; after a repair: "
                     f"{command(settings, f'retry {quarantined[0][0]}')}")  # fmt: skip
    if blocked:
        lines.append(f"Next: {command(settings, 'why ' + shlex.quote(blocked[0][0]))}")
    return "\n".join(lines)


def _named(title: str, files: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f"{title}: {path}: {reason}" for path, reason in files[:SHOWN]]
    return lines + ([f"{title}: {_files(len(files) - SHOWN)} more."] if len(files) > SHOWN else [])


def _unfinished(overview: Overview) -> int:
    """Files that are settling and jobs that are queued or running."""
    return overview.files.get("settling", 0) + overview.jobs.get("queued", 0) + overview.jobs.get("running", 0)


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"
