"""The supervisor's loop: knows nothing of what its parts do, keeps them running, and tells what happens to them."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from daemon import children
from daemon.childlog import ChildLog
from daemon.progress import Console
from worker.errors import ExitCode

LOOP_S = 0.1


class Stops:
    """Counts the signals that ask to stop: the first one ends the loop, a second one ends all children at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Stops":
        self._before = {number: signal.getsignal(number) for number in self.SIGNALS}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:  # `nohup` has asked for that
                signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


class Supervisor:
    """Keeps parts running, those that run already and children that are still to be started."""

    def __init__(
        self, console: Console, logs: Path, *, started: Sequence[children.Part], to_start: Sequence[children.Child]
    ) -> None:
        self._console = console
        self._children = to_start
        self._keepers = [children.Keeper(part, started=True) for part in started]
        self._keepers += [children.Keeper(part) for part in to_start]
        self._logs = {part.name: ChildLog(logs / f"{part.name}.log") for part in to_start}

    def run(self, stops: Stops, look: Callable[[], ExitCode | None], *, patience: int | None = None) -> ExitCode | None:
        """Loops until there is a reason to end; stops nothing itself.

        Args:
            stops: a signal ends the loop: None.
            look: called in every round; its exit code ends the loop.
            patience: so many deaths of one part in a row end the loop: FAILED.

        Returns:
            Also the exit code of a child that can never start.
        """
        while not stops.count:
            for keeper in self._keepers:
                if (told := keeper.tick(time.monotonic())) is not None:
                    self._tell(keeper, told)
                if keeper.hopeless is not None:
                    return ExitCode(keeper.hopeless)
                if patience and keeper.deaths >= patience:
                    self._console.say(f"Giving up: the {keeper.part.name} ended {keeper.deaths} times in a row.")
                    return ExitCode.FAILED
            self._echo()
            if (code := look()) is not None:
                return code
            time.sleep(LOOP_S)
        return None

    def stop(self, stops: Stops) -> None:
        """Ends the children; a further signal meanwhile ends them at once."""
        before = stops.count
        self._console.end_progress()
        if stops.count:
            self._console.say("Stopping. Work in hand goes back into the queue; nothing is lost.")
        children.stop(self._children, at_once=lambda: stops.count > max(before, 1))
        self._echo()

    def _tell(self, keeper: children.Keeper, told: str) -> None:
        self._echo()
        log = self._logs.get(keeper.part.name)
        words = log.last_words if log and " status " in told else ""  # whom a signal ended had no time to say why
        self._console.say(f"{told} It said: {words}" if words else told)

    def _echo(self) -> None:
        for name, log in self._logs.items():
            for news in log.follow(time.monotonic()):
                self._console.say(f"{name}: {news}")
