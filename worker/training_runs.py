"""The record of training runs: one at a time, by a lease that a crash gives back, and a number that fences."""

import dataclasses
import datetime as dt
import os
import socket
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker import curated, leases
from worker.db import after
from worker.errors import TrainingTaken
from worker.learning_tables import CuratedPhoto, RunState, TrainingRun

LEASE_S: Final = 60.0
#: a lease that ends later than this is from before the clock was put back; it may have been so by less unnoticed
LONGEST_LEASE_S: Final = 2 * LEASE_S
#: a run that ended its process so often is given up: something in it kills
MOST_CLAIMS: Final = 25


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingStatus:
    """The newest run, as a person wants to see it."""

    id: int
    state: str
    reason: str
    phase: str
    fraction: float
    eta_s: float | None
    holder: str
    version: str | None
    created_at: dt.datetime
    finished_at: dt.datetime | None


def begin(session: Session, *, trigger: str, least_new: int, holder: str) -> tuple[TrainingRun, bool]:
    """Start a run, go on with one that was interrupted, or record why there is nothing to do.

    Args:
        session: a writing session.
        trigger: `now`, `schedule` or `detach`.
        least_new: accepted photos that no run has used which make a run worth while.
        holder: this process, by `this_process`.

    Returns:
        The run's row, and whether it is ours to work on; if not, it is `skipped` and says why.
    """
    running = session.scalars(
        sa.select(TrainingRun).where(TrainingRun.state == RunState.RUNNING).with_for_update()
    ).one_or_none()
    if running is not None:
        return _go_on(session, running, trigger, holder)
    new = curated.new_photos(session)
    if new < least_new:
        needed = f"{least_new} are needed (setting retrain_least_new)"
        reason = f"Nothing to do: {new} new curated photos since the last run, {needed}."
        return _skipped(session, trigger, reason), False
    run = TrainingRun(trigger=trigger, holder=holder, lease_until=after(LEASE_S), phase="freezing")
    session.add(run)
    session.flush()
    return run, True


def _go_on(session: Session, run: TrainingRun, trigger: str, holder: str) -> tuple[TrainingRun, bool]:
    """Take over a run whose process is gone; leave one alone that is under way."""
    taken = session.execute(
        sa.update(TrainingRun)
        .where(TrainingRun.id == run.id, TrainingRun.claim_no == run.claim_no, _nobody_works_on(run, asks=holder))
        .values(claim_no=TrainingRun.claim_no + 1, holder=holder, lease_until=after(LEASE_S))
    )
    if taken.rowcount != 1:  # type: ignore[attr-defined]
        return _skipped(session, trigger, f"Nothing to do: run {run.id} is under way ({run.holder})."), False
    session.refresh(run)
    return run, True


def _skipped(session: Session, trigger: str, reason: str) -> TrainingRun:
    run = TrainingRun(trigger=trigger, state=RunState.SKIPPED, reason=reason, finished_at=after(0))
    session.add(run)
    session.flush()
    return run


def update(session: Session, run: TrainingRun, **values: Any) -> None:
    """Renew the lease and record progress.

    Raises:
        TrainingTaken: another process has gone on with the run; this one must end.
    """
    _guarded(session, run, {"lease_until": after(LEASE_S), **values})


def release(session: Session, run: TrainingRun, reason: str) -> None:
    """Stop working on a run that the next start is to go on with.

    Raises:
        TrainingTaken: it is no longer ours.
    """
    _guarded(session, run, {"lease_until": None, "reason": reason, "phase": "interrupted"})


def finish(session: Session, run: TrainingRun, state: RunState, reason: str, **values: Any) -> None:
    """End a run; the photos of a failed one count as new again.

    Raises:
        TrainingTaken: it is no longer ours.
    """
    ended = {"state": state, "reason": reason, "finished_at": after(0), "lease_until": None}
    _guarded(session, run, ended | {"phase": "", "fraction": 1.0, "eta_s": None} | values)
    if state is RunState.FAILED:
        session.execute(sa.update(CuratedPhoto).where(CuratedPhoto.first_run == run.id).values(first_run=None))


def _guarded(session: Session, run: TrainingRun, values: dict[str, Any]) -> None:
    moved = session.execute(
        sa.update(TrainingRun)
        .where(
            TrainingRun.id == run.id, TrainingRun.claim_no == run.claim_no, TrainingRun.state == RunState.RUNNING
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        raise TrainingTaken(f"Run {run.id} is no longer this process's; another one has gone on with it.")


def _nobody_works_on(run: TrainingRun, asks: str = "") -> sa.ColumnElement[bool]:
    """Its process has let go of it, has died, or has lost its lease.

    A process that is seen to work on this host keeps it also without a lease: the clock may have jumped ahead since it
    renewed. `asks` is who wants to know, who is of course at work.
    """
    let_go = TrainingRun.lease_until.is_(None)
    if not is_alive(run.holder):
        return sa.true()
    if run.holder != asks and is_at_work(run.holder):
        return let_go
    return sa.or_(let_go, leases.is_void(TrainingRun.lease_until, LONGEST_LEASE_S))


def under_way(session: Session) -> bool:
    """Is a run being worked on now?"""
    return interrupted(session) is False


def interrupted(session: Session) -> bool | None:
    """Is there a run that nobody works on any more? None when there is none at all; False while one is under way."""
    run = session.scalars(sa.select(TrainingRun).where(TrainingRun.state == RunState.RUNNING)).one_or_none()
    if run is None:
        return None
    return session.scalar(sa.select(TrainingRun.id).where(TrainingRun.id == run.id, _nobody_works_on(run))) is not None


def latest(session: Session) -> TrainingStatus | None:
    """The run under way, else the newest that was more than skipped, else the newest."""
    order = sa.case((TrainingRun.state == RunState.RUNNING, 0), (TrainingRun.state != RunState.SKIPPED, 1), else_=2)
    run = session.scalars(sa.select(TrainingRun).order_by(order, TrainingRun.id.desc()).limit(1)).first()
    if run is None:
        return None
    return TrainingStatus(**{field.name: getattr(run, field.name) for field in dataclasses.fields(TrainingStatus)})


def sentence(status: TrainingStatus) -> str:
    """What a run came to, or how far it is."""
    if status.state == RunState.RUNNING:
        eta = f", about {status.eta_s / 60:.0f} min of training left" if status.eta_s else ""
        return f"Run {status.id} is {status.phase} ({100 * status.fraction:.0f} %{eta}). {status.reason}".strip()
    made = f" made version {status.version}" if status.version else ""
    return f"Run {status.id}{made}: {str(status.state).replace('_', ' ')}. {status.reason}"


def this_process() -> str:
    """Host, process and its start, so that a process id which is used again is not taken for this one."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_alive(holder: str) -> bool:
    """Whether a holder's process runs; True for other hosts, whose leases have to run out."""
    ours = _on_this_host(holder)
    return ours is None or _started(ours[0]) == ours[1]


def is_at_work(holder: str) -> bool:
    """Whether a holder's process is seen to run on this host; False for what is stopped, and where nothing tells."""
    ours = _on_this_host(holder)
    seen = _state(ours[0]) if ours else None
    return ours is not None and seen is not None and seen[1] == ours[1] and seen[0] not in "Tt"


def _on_this_host(holder: str) -> tuple[int, str] | None:
    """Process id and start of a holder on this host; None for other hosts'."""
    host, _, pid = holder.rpartition(":")[0].rpartition(":")
    return (int(pid), holder.rpartition(":")[2]) if host == socket.gethostname() and pid.isdigit() else None


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" when there is none, or the kernel does not tell."""
    seen = _state(pid)
    return seen[1] if seen else ""


def _state(pid: int) -> tuple[str, str] | None:
    """State letter and start of a process (proc(5)); None when there is none but its exit code, or nothing tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (fields[0], fields[19]) if len(fields) > 19 and fields[0] not in "ZXx" else None
