"""From rows to messages: send what is due, keep few in flight, send again what was lost, take back void claims."""

import logging
import time
from collections.abc import Sequence
from typing import Final

from sqlalchemy.orm import Session

from daemon import space
from worker import curated, fault, jobs, outbox, queue, strikes, training_runs
from worker.db import Database
from worker.errors import BrokerUnavailable
from worker.settings import Settings
from worker.tables import Job

logger = logging.getLogger(__name__)

#: a message may be under way so long before its absence means something
GRACE_S: Final = 10
#: a request to check curated photos may be lost; the next one is sent after so long
ASK_AGAIN_S: Final = 30


class Dispatcher:
    """Publishes job ids. Two of them on one database only send a message too many, which no claim accepts twice.

    Attributes:
        paused: roots whose jobs wait for room on their disk, or for an answer of it, and why.
        unseen: roots that have not been looked at since the start: what the record says of them may be over.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.paused: dict[str, str] = {}
        self.unseen: set[str] = set()
        self._down = False
        self._asked_for, self._asked_s = 0, 0.0

    def dispatch(self) -> int:
        """Send the messages that are due now; returns how many. A silent broker is logged once and waited for."""
        with self.database.reading() as session:
            if not outbox.anything_queued(session) or self._training(session):
                return 0
        self.make_room()
        try:
            broker_empty = queue.waiting() == 0
            due = self._mark_due(broker_empty)
            if due:
                fault.point("marked")
            self._send(due)
        except BrokerUnavailable as error:
            if not self._down:
                logger.warning("broker_down", extra={"why": str(error)})
            self._down = True
            return 0
        if self._down:
            logger.warning("broker_back")
        self._down = False
        return len(due)

    def _mark_due(self, broker_empty: bool) -> list[Job]:
        """Note that messages for the jobs that are due are about to be sent. Nobody waits while they are found."""
        with self.database.reading() as session:
            found = outbox.to_dispatch(
                session, in_flight=self.settings.in_flight, broker_empty=broker_empty, grace_s=GRACE_S,
                paused={*self.paused, *self.unseen},
            )  # fmt: skip
        if not found:
            return []
        with self.database.writing() as session:
            marked = outbox.mark_dispatched(session, [job.id for job in found])
        return [job for job in found if job.id in marked]

    def make_room(self) -> None:
        """See which roots have to pause until there is room on their disks again, or an answer from them."""
        with self.database.reading() as session:
            wanted = space.wanted_bytes(session, self.settings)
        found = space.shortages(self.settings, wanted)
        for name, reason in found.items():
            if name not in self.paused:
                logger.warning("root_paused", extra={"root": name, "why": reason})
        for name in self.paused.keys() - found.keys():
            logger.warning("root_goes_on", extra={"root": name})
        self.paused = found

    def _send(self, due: Sequence[Job]) -> None:
        for position, job in enumerate(due):
            try:
                queue.send(job.id, job.priority)
                fault.point("sent")
            except BrokerUnavailable:
                with self.database.writing() as session:
                    outbox.mark_undelivered(session, [unsent.id for unsent in due[position:]])
                raise

    def _training(self, session: Session) -> bool:
        """Whether colouring waits because a retraining run has the GPU."""
        return self.settings.retrain_pauses_colouring and training_runs.under_way(session)

    def dispatch_curated(self) -> bool:
        """Ask a worker to check curated photos, if any wait; again when fewer wait, or after half a minute."""
        with self.database.reading() as session:
            waiting = curated.waiting(session)
        if not waiting or (waiting == self._asked_for and time.monotonic() - self._asked_s < ASK_AGAIN_S):
            return False
        try:
            queue.ask_for_curation()
        except BrokerUnavailable as error:
            logger.debug("curation not asked for", exc_info=error)  # `dispatch` is the one who says it
            return False
        self._asked_for, self._asked_s = waiting, time.monotonic()
        return True

    def sweep(self) -> None:
        """Take back the jobs of workers that have not renewed their lease."""
        with self.database.reading() as session:
            if not jobs.anything_expired(session, strikes.in_force(self.settings)):
                return
        with self.database.writing() as session:
            for job in jobs.expire(session, strikes.in_force(self.settings)):
                logger.warning("lease_expired", extra={"job_id": job.id, "state": job.state, "worker": job.worker})
            fault.point("taken_back")
