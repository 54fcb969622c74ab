"""What a worker's first process looks after while it runs: its broker's count of messages, and its database's schema.

A worker that waits for nothing is noticed, and cured by a fresh connection to the broker.

With one message reserved at a time, a message that was received and whose acknowledgement failed (the broker did not
answer for `socket_timeout`) stays counted as reserved for ever: Celery logs "Couldn't ack" and kombu asks for no more
messages (kombu 5.7, `QoS.can_consume`), while every part looks alive.
"""

import logging
import threading
from typing import Any, Final

import sqlalchemy as sa
from celery import bootsteps
from celery.worker import state

from worker.db import SchemaGuard
from worker.errors import SetupError

logger = logging.getLogger(__name__)

LOOK_S: Final = 5.0
#: so many looks in a row must see it: a message may just be on its way into the pool
LOOKS: Final = 3


class Attention(bootsteps.StartStopStep):  # type: ignore[misc]
    """Reconnects when more messages are reserved at the broker than are in this worker's hands."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._forgotten = 0
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Look from now on; called again after every reconnection."""
        self._forgotten = 0
        self._timer = consumer.timer.call_repeatedly(LOOK_S, self.look, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self, consumer: Any) -> None:
        """Compare what is reserved with what is in hand.

        Raises:
            ConnectionResetError: they have differed for long; to Celery a lost connection, for which it makes another.
        """
        qos = getattr(getattr(consumer.task_consumer, "channel", None), "qos", None)
        delivered, dirty = getattr(qos, "_delivered", ()), getattr(qos, "_dirty", ())
        forgotten = len(delivered) - len(dirty) > len(state.reserved_requests)
        self._forgotten = self._forgotten + 1 if forgotten else 0
        if self._forgotten >= LOOKS:
            self._forgotten = 0
            logger.warning("reconnecting", extra={"why": "a finished message was never acknowledged"})
            raise ConnectionResetError("A finished message was never acknowledged.")


class SchemaWatch:
    """Ends the worker, after the job in hand, when another release has migrated the database.

    In a thread: a database that does not answer must not keep the worker from its broker.

    Attributes:
        refusal: why the worker was ended.
    """

    def __init__(self, guard: SchemaGuard) -> None:
        self.refusal: SetupError | None = None
        self._guard = guard

    def start(self) -> None:
        """Look from now on, as long as the process runs."""
        threading.Thread(target=self._watch, name="schema", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while self.refusal is None:
            pause.wait(LOOK_S)
            try:
                self._guard.refuse_another()
            except SetupError as error:
                self.refusal = error
                state.should_stop = int(error.exit_code)  # Celery's own way to a warm shutdown
            except sa.exc.SQLAlchemyError:
                logger.debug("schema not seen", exc_info=True)
