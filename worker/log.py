"""Logs: one JSON object a line in files and services, a plain sentence on a terminal. The job's id goes into each."""

import contextlib
import contextvars
import datetime as dt
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any, Final

_job_id: contextvars.ContextVar[int | None] = contextvars.ContextVar("job_id", default=None)
#: what every record has; anything else came in by `extra=`
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextlib.contextmanager
def job_context(job_id: int) -> Iterator[None]:
    """Everything logged within belongs to this job."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


class JsonFormatter(logging.Formatter):
    """Time (UTC), level, where, the sentence, the job, and whatever came by `extra=`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (job_id := _job_id.get()) is not None:
            line["job_id"] = job_id
        line.update({name: value for name, value in vars(record).items() if name not in _OWN})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send all logs to stderr: JSON, or on a terminal a short plain line."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("alembic", "celery.bootsteps", "pyvips", "tifffile", "watchdog"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
