"""What an error costs a claimed job: its evidence, its strikes, and the pause before the job is done again."""

import dataclasses
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker.errors import PhotochromError
from worker.settings import Settings
from worker.tables import Job, JobEvent, JobState

TRACEBACK_TAIL_CHARS: Final = 4000
#: what waits for a disk or a share is looked at again within the minute that a recovery may take
LONGEST_WAIT_S: Final = 40.0
#: moves that are looked at to count waits: enough for the shortest pause to grow to the longest
LAST_MOVES: Final = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strikes:
    """How often a job may fail, and the pauses between.

    Attributes:
        failures: strikes for errors before quarantine.
        lost: strikes for lost workers before quarantine.
        retry_s: pause after the first error, seconds; doubles with each.
        wait_s: first pause, seconds, after an error for which the scan is not to blame; doubles up to LONGEST_WAIT_S.
        lease_s: how long a claim is valid.
    """

    failures: int
    lost: int
    retry_s: float
    wait_s: float
    lease_s: float = 20


def in_force(settings: Settings) -> Strikes:
    """The strike rules of an installation."""
    return Strikes(
        failures=settings.max_failures, lost=settings.max_lost, retry_s=settings.retry_s, wait_s=settings.wait_s,
        lease_s=settings.lease_s,
    )  # fmt: skip


def evidence(error: PhotochromError, traceback: str) -> dict[str, Any]:
    """What a job's row keeps of an error."""
    return {
        "error_class": error.code,
        "error_message": _storable(str(error)) or type(error).__name__,
        "traceback_tail": _storable(traceback[-TRACEBACK_TAIL_CHARS:]) or None,
    }


def pause_after_strike_s(rules: Strikes, failures: int) -> float:
    """How long a job pauses after its `failures`-th strike."""
    return rules.retry_s * 2 ** (failures - 1)


def pause_without_strike_s(session: Session, rules: Strikes, job: Job, error: PhotochromError) -> float:
    """How long a job pauses that waits for something: each time longer, until it has waited for something else."""
    return min(rules.wait_s * 2 ** _waits_in_a_row(session, job, error), max(rules.wait_s, LONGEST_WAIT_S))


def fold_waits(session: Session, rules: Strikes, job: Job, error: PhotochromError) -> None:
    """Let a wait take the place of the one before it in the events, once the pause grows no more.

    Scans that may not be read for weeks would add events without end. The first ones stay and say since when; the
    last one's claim says how many there were.
    """
    waits = _waits_in_a_row(session, job, error)
    if waits > 1 and rules.wait_s * 2**waits >= LONGEST_WAIT_S:
        before = (JobEvent.job_id == job.id, JobEvent.claim_no == job.claim_no - 1)  # that claim, and its end
        session.execute(sa.delete(JobEvent).where(*before))


def waits_for(error_class: str) -> str:
    """How the note of a wait begins; by it the waits in a row are counted."""
    return f"waits ({error_class}):"


def _waits_in_a_row(session: Session, job: Job, error: PhotochromError) -> int:
    """How often this job has waited for the same thing already, and for nothing else in between."""
    moves = sa.select(JobEvent.state, JobEvent.note).where(JobEvent.job_id == job.id).order_by(JobEvent.id.desc())
    last = session.execute(moves.limit(LAST_MOVES)).all()
    waited = [note.startswith(waits_for(error.code)) for state, note in last if state is not JobState.RUNNING]
    return waited.index(False) if False in waited else len(waited)


def _storable(text: str) -> str:
    """Text that every database takes: no NUL (PostgreSQL), no lone surrogate (a file name that is no UTF-8)."""
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode("utf-8")
