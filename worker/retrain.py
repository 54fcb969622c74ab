"""One retraining run: freeze, train, publish, judge, and promote or not. A kill anywhere is gone on with by the next.

Every step finds on disk what an earlier process has finished: the manifest, the checkpoints, the version's folder. The
verdict, the version's state, the flip of the alias and the end of the run are one transaction.
"""

import contextlib
import dataclasses
import errno
import logging
import os
import platform
import traceback
from collections.abc import Iterator
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from model import registry
from model.colorizer import ChromaNotFinite, Colorizer
from model.export import export_run
from model.photos import PhotosError
from model.registry import Version, WeightsError
from model.retraining import Effort, retrain
from model.run import Progress
from model.store import Store
from model.train import LossNotFinite, TrainingError
from worker import fault, manifest, serving, training_runs, trial, versions
from worker.db import Database
from worker.errors import OutputFull, PhotochromError, TrainingTaken, TrialImpossible
from worker.learning_tables import RunState, TrainingRun, VersionState
from worker.ledger import Ledger, Show
from worker.settings import Settings

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """How an attempt ended."""

    state: RunState
    reason: str
    run_id: int
    version: str | None = None


def run(
    settings: Settings, database: Database, *, trigger: str, minutes: float | None = None,
    show: Show = lambda phase, fraction, says: None,
) -> Ended:  # fmt: skip
    """Do what is to be done now: a new run, the rest of an interrupted one, or nothing, which is recorded too.

    Args:
        settings: caps, folders, limits of the gate.
        database: the record.
        trigger: `now`, `schedule` or `detach`.
        minutes: another cap on training time.
        show: called with phase, share of the whole and words while it goes on.

    Raises:
        OutputFull: no room; the next start goes on from the last checkpoint.
        TrainingTaken: another process has taken the run over.
    """
    with database.writing() as session:
        row, ours = training_runs.begin(
            session, trigger=trigger, least_new=settings.retrain_least_new, holder=training_runs.this_process()
        )
        session.expunge(row)
    if not ours:
        return Ended(state=row.state, reason=row.reason, run_id=row.id)
    ledger = Ledger(database, row, show)
    with _failures(ledger) as ended, ledger.kept_alive():
        if row.claim_no > training_runs.MOST_CLAIMS:
            raise TrainingError(
                f"It was interrupted {training_runs.MOST_CLAIMS} times; something in it ends the process."
            )
        ended.append(_attempt(settings, ledger, minutes))
    return ended[0]


@contextlib.contextmanager
def _failures(ledger: Ledger) -> Iterator[list[Ended]]:
    """What an error makes of the run."""
    ended: list[Ended] = []
    try:
        yield ended
    except TrainingTaken:
        raise
    except TrialImpossible as error:
        with ledger.database.writing() as session:
            training_runs.release(session, ledger.run, f"Interrupted: {error}")
        raise
    except LossNotFinite as error:
        ended.append(_end(ledger, RunState.REJECTED, f"Training came apart: {error} The champion stays."))
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            ended.append(_fail(ledger, error))
            return
        words = f"Interrupted: no space left ({error.filename or 'state_dir'})."
        # on a disk that takes nothing the row stays as it is: that this process has ended tells the next start enough
        with contextlib.suppress(sa.exc.OperationalError), ledger.database.writing() as session:
            training_runs.release(session, ledger.run, words)
        raise OutputFull(
            f"No space left for run {ledger.run.id} in {ledger.run.directory}. Free some; the next start goes on from "
            "the last checkpoint."
        ) from error
    except (PhotochromError, TrainingError, PhotosError, WeightsError, ChromaNotFinite, MemoryError) as error:
        ended.append(_fail(ledger, error))


def _fail(ledger: Ledger, error: BaseException) -> Ended:
    logger.warning("retraining_failed", extra={"run": ledger.run.id, "traceback": traceback.format_exc()[-2000:]})
    return _end(ledger, RunState.FAILED, f"{type(error).__name__}: {error}")


def _end(ledger: Ledger, state: RunState, reason: str) -> Ended:
    with ledger.database.writing() as session:
        training_runs.finish(session, ledger.run, state, reason)
    return Ended(state=state, reason=reason, run_id=ledger.run.id)


def _attempt(settings: Settings, ledger: Ledger, minutes: float | None) -> Ended:
    """From wherever the run is to its end."""
    row = ledger.run
    folder = folder_of(settings, row.id)
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(settings.models)
    parent = store.open(row.parent) if row.parent else serving.chosen(settings)
    store.keep(parent)
    effort = _effort(settings, row, minutes)
    ledger.note(parent=parent.name, directory=str(folder), config=_config(settings, row, effort))
    champion = Colorizer(parent)
    frozen = manifest.freeze(ledger.database, settings, row, folder, champion, ledger.phase("freezing"))
    if row.manifest_sha256 not in {None, frozen.sha256}:
        raise TrainingError(f"The manifest in {folder} is not the one this run was started with.")
    used = manifest.replay_in_words(frozen.record["replay"])
    ledger.note(manifest_sha256=frozen.sha256, config=row.config | {"replay": used})
    fault.point("frozen")
    name = f"r{row.id}-{frozen.sha256[:8]}"
    if not (store.root / name).is_dir():
        _train(ledger, frozen, champion, effort)
        store.root.mkdir(parents=True, exist_ok=True)
        notes = {"parent": parent.name, "run": row.id, "manifest_sha256": frozen.sha256, "config": row.config}
        export_run(folder / "training", store.root / name, name=name, notes=notes, card=_card(name, frozen, row))
    fault.point("exported")
    challenger = store.open(name)
    verdict = trial.hold(settings, frozen, champion, challenger, ledger.phase("judging"))
    return _conclude(ledger, parent, challenger, verdict)


def _effort(settings: Settings, row: TrainingRun, minutes: float | None) -> Effort:
    """What this run is allowed: as it was begun, with what memory has taught since."""
    known = row.config.get("effort", {})
    return Effort(
        minutes=minutes or known.get("minutes") or settings.retrain_minutes,
        steps=known.get("steps") or settings.retrain_steps,
        batch=known.get("batch") or settings.retrain_batch,
        size_px=known.get("size_px") or settings.retrain_px,
        seed=row.id,
        checkpoint_every_s=settings.retrain_checkpoint_s,
    )


def _config(settings: Settings, row: TrainingRun, effort: Effort) -> dict[str, Any]:
    """What the record keeps of how the run was done."""
    return row.config | {
        "effort": dataclasses.asdict(effort),
        "loss": "GAN + 100 L1",
        "optimizer": "Adam 2e-4, beta_1 0.5",
        "code": package_version("photochrom"),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, device {settings.device}",
        "attempts": row.claim_no,
    }


def _train(ledger: Ledger, frozen: manifest.Manifest, champion: Colorizer, effort: Effort) -> None:
    def progress(step: Progress) -> None:
        """Into the run's row; photos being packed are not part of the budget."""
        says = f"step {step.step}, {step.images_s:.0f} images/s"
        ledger.tell("training", step.fraction if step.phase != "packing" else 0.0, says, step.eta_s)
        fault.point("training")

    def reduced(less: Effort) -> None:
        """Remember it, so that a resume starts with what fits."""
        logger.warning("memory_short", extra={"batch": less.batch, "size_px": less.size_px})
        ledger.note(config=ledger.run.config | {"effort": dataclasses.asdict(less)})

    retrain(frozen.photos, frozen.folder / "training", champion, effort, progress=progress, reduced=reduced)


def _card(name: str, frozen: manifest.Manifest, row: TrainingRun) -> str:
    """The version's CARD.md."""
    licences = sorted({photo["licence"] or "not stated" for photo in frozen.used("train")})
    return (
        f"# {name}\n\nMade by Photochrom's retraining (run {row.id}) from version {row.parent}.\n\n"
        f"Learned from {len(frozen.used('train'))} curated photos (licences: {', '.join(licences)}) and replay of "
        f"{len(frozen.record['replay']['photos'])} ({manifest.replay_in_words(frozen.record['replay'])}). Manifest "
        f"sha256 {frozen.sha256}. The verdict is in the record: `photochrom models show {name}`.\n\n"
        "Its colours are inferred; they are plausible, not true.\n"
    )


def _conclude(ledger: Ledger, parent: Version, challenger: Version, verdict: dict[str, Any]) -> Ended:
    """Record version, verdict and end of the run, and promote if the gate says so: all or nothing."""
    outcome, row = verdict["outcome"], ledger.run
    state = RunState(outcome)
    reason = " ".join(verdict["reasons"]) or "Every point of the gate holds."
    kept = VersionState.REJECTED if state is RunState.REJECTED else VersionState.CANDIDATE
    with ledger.database.writing() as session:
        for version, its_state, its_parent in ((parent, VersionState.PROMOTED, None), (challenger, kept, parent.name)):
            known = versions.record(session, version.name, directory=str(version.directory), state=its_state,
                                    weights_sha256=version.weights_sha256, parent=its_parent)  # fmt: skip
        known.verdict, known.state = verdict, kept
        shipped = registry.shipped().name
        serves = versions.champion(session) or shipped
        if state is RunState.PROMOTED and serves != parent.name:
            state = RunState.NEEDS_APPROVAL
            reason = f"It was judged against {parent.name}, but {serves} has become the champion meanwhile."
        if state is RunState.PROMOTED:
            versions.promote(session, challenger.name, shipped=shipped, actor=f"training run {row.id}", reason=reason)
        training_runs.finish(session, row, state, reason, version=challenger.name, verdict=verdict)
    return Ended(state=state, reason=reason, run_id=row.id, version=challenger.name)


def folder_of(settings: Settings, run_id: int) -> Path:
    """Where a run's manifest, checkpoints, curves and report lie."""
    return settings.state_dir / "runs" / f"{run_id:05d}"
