"""A training run's row while a process works on it: the lease that says so, and how far it is."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import sqlalchemy as sa

from worker import training_runs
from worker.db import Database
from worker.errors import TrainingTaken
from worker.learning_tables import TrainingRun

logger = logging.getLogger(__name__)

RENEW_S: Final = 5.0
#: the lease is renewed so often whatever the work is busy with; several times within `training_runs.LEASE_S`
BEAT_S: Final = 15.0
#: share of the whole run that each phase takes in what `status` shows
SPAN: Final = {"freezing": (0.0, 0.05), "training": (0.05, 0.85), "judging": (0.85, 1.0)}

Show = Callable[[str, float, str], None]


class Ledger:
    """A run's row while this process works on it: renews the lease, records progress, notices when it was lost."""

    def __init__(self, database: Database, run: TrainingRun, show: Show) -> None:
        self.database = database
        self.run = run
        self._show = show
        self._renewed_s = 0.0

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renew the lease in the background: loading, publishing and trying a version may take longer than one.

        A process that was fenced off finds out at its next `tell` or `note`; the thread only stops.
        """
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), name="training-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            try:
                with self.database.writing() as session:
                    training_runs.update(session, self.run)
            except TrainingTaken:
                return
            except sa.exc.SQLAlchemyError:
                logger.warning("training_lease_not_renewed", exc_info=True)

    def phase(self, name: str) -> Callable[[float], None]:
        """The reporter of one phase; takes the share of it that is done."""
        return lambda share: self.tell(name, share)

    def tell(self, phase: str, share: float, says: str = "", eta_s: float | None = None) -> None:
        """Show progress, and record it every few seconds.

        Raises:
            TrainingTaken: another process has gone on with the run.
        """
        low, high = SPAN[phase]
        fraction = low + (high - low) * min(1.0, share)
        self._show(phase, fraction, says)
        if time.monotonic() - self._renewed_s < RENEW_S:
            return
        with contextlib.suppress(sa.exc.OperationalError), self.database.writing() as session:
            training_runs.update(session, self.run, phase=phase, fraction=fraction, eta_s=eta_s)
        self._renewed_s = time.monotonic()

    def note(self, **values: Any) -> None:
        """Write columns of the row now.

        Raises:
            TrainingTaken: another process has gone on with the run.
        """
        with self.database.writing() as session:
            training_runs.update(session, self.run, **values)
        for name, value in values.items():
            setattr(self.run, name, value)
