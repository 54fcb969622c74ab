"""One job's way: claim, read, colour, verify, publish, finish. Nothing here decides twice what the record decides."""

import dataclasses
import functools
import logging
import os
import socket
import traceback
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.orm import Session

from model import device
from model.store import Store
from worker import fault, jobs, limits, log, originals, publish, recovery, scans, sidecar, strikes, training_runs, twins
from worker.answers import NoAnswer, ask
from worker.db import Database, SchemaGuard, open_database
from worker.deriving import derive, judge
from worker.errors import (
    DependencyMissing,
    JobMoved,
    MemoryExceeded,
    PhotochromError,
    ScanChanged,
    ScanIgnored,
    ScanMissing,
    ScanUnreadable,
    ScanVanished,
)
from worker.files import read_again
from worker.holding import held
from worker.identity import is_recorded_here, shares_of
from worker.meanings import from_exception, from_os_error
from worker.mounts import share_away
from worker.overview import database_time
from worker.policy import policy_for
from worker.serving import Serving
from worker.settings import Settings, load
from worker.tables import FileState, Job, JobState, Root, SourceFile, absolute, display

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What one worker process needs for every job, made once and warm."""

    settings: Settings
    database: Database
    serving: Serving
    name: str
    schema: SchemaGuard


@functools.cache
def prepare() -> Bench:
    """Load and warm everything before the first claim; from then on the process's limits are in force."""
    settings = load()
    try:
        device.choose(settings.device)
    except device.DeviceError as error:
        raise DependencyMissing(str(error)) from error
    scans.set_up_libvips(threads=1)
    database = open_database(settings.database)
    serving = Serving(Store(settings.models), database)
    colorizer = serving.champion()
    name = f"{recovery.worker_name()}{os.getpid()}:{uuid.uuid4().hex[:8]}"
    bench = Bench(settings, database, serving, name, SchemaGuard(database))
    # Last, so that what was loaded does not count; and here, so that no job is ever done without.
    limits.apply(
        memory_mib=settings.job_memory_mib,
        max_megapixels=settings.max_megapixels,
        processes=settings.worker_processes,
    )
    logger.info("worker_ready", extra={"worker": name, "device": colorizer.device, "model": colorizer.version.name})
    return bench


def _paused(bench: Bench) -> bool:
    if not bench.settings.retrain_pauses_colouring:
        return False
    with bench.database.reading() as session:
        return training_runs.under_way(session)


def run(job_id: int) -> None:
    """Do one job, if it is still there to do. Never raises for what is wrong with a scan: the row says it.

    Raises:
        SetupError: another release has migrated the database; nothing was claimed.
    """
    bench = prepare()
    fault.point("before_claim")
    with log.job_context(job_id):
        if _paused(bench):
            logger.info("paused_for_training")  # the row stays queued; the dispatcher sends it again afterwards
            return
        bench.schema.refuse_another()  # the worker's first process, which looks too, ends soon
        champion = bench.serving.champion()
        with bench.database.writing() as session:
            job = jobs.claim(
                session,
                job_id,
                worker=bench.name,
                device=champion.device,
                host=socket.gethostname(),
                model_version=champion.version.name,
                lease_s=bench.settings.lease_s,
            )
        if job is None:
            logger.info("job_not_claimed")
            return
        fault.point("claimed")
        _settle(bench, job)
        fault.point("finished")


def _settle(bench: Bench, job: Job) -> None:
    """Work on a claimed job and put what came of it into its row."""
    try:
        try:
            with held(bench.database, bench.settings, job, _folders(bench, job)):
                _colour(bench, job)
        except JobMoved:
            raise
        except PhotochromError as error:
            _fail(bench, job, _missing(bench, job, error) if isinstance(error, ScanVanished) else error)
        except OSError as error:
            _fail(bench, job, from_os_error(error))
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the row must say it
            _fail(bench, job, from_exception(error))
    except JobMoved as error:
        logger.warning("job_moved", extra={"why": str(error)})


def _folders(bench: Bench, job: Job) -> tuple[bytes, bytes]:
    """Where it reads, and where it writes; not the root and the output, as a share may be mounted below either."""
    with bench.database.reading() as session:
        root = session.get_one(Root, job.root)
    return os.path.dirname(absolute(root.path, job.path)), os.path.dirname(absolute(root.output, job.path))


def _missing(bench: Bench, job: Job, error: ScanVanished) -> PhotochromError:
    """What a missing file means: it has vanished only when it was missing before too, in the folder of the record."""
    with bench.database.reading() as session:
        root, shares = session.get_one(Root, job.root), shares_of(session, job.root)
    if (share := share_away(root.path, job.path, shares)) is not None:
        away = display(absolute(root.path, share))
        return ScanUnreadable(f"{away} is not mounted. Mount it; the job goes on by itself.")
    if not is_recorded_here(bench.database, root):
        return ScanUnreadable(
            f"The folder {display(root.path)} is not the one of the record. {root.reason or 'Mount it on this host.'} "
            "The job goes on by itself."
        )
    return error if job.error_class == ScanMissing.code else ScanMissing(str(error))


def _left_alone(session: Session, job: Job, error: PhotochromError) -> PhotochromError:
    """What an error means for a scan that the watcher has left alone since: its new content is waited for in vain."""
    file = session.get_one(SourceFile, job.source_file_id)
    if not isinstance(error, ScanChanged) or file.state is not FileState.IGNORED:
        return error
    return ScanIgnored(f"The file is no longer the one that was recorded, and is left alone now. {file.reason}")


def _fail(bench: Bench, job: Job, error: PhotochromError) -> None:
    with bench.database.writing() as session:
        error = _left_alone(session, job, error)
        if isinstance(error, ScanChanged):  # nothing else about it need have changed, and then no scan would see it
            read_again(session, job.source_file_id)
        settled = jobs.fail(session, job, error, strikes.in_force(bench.settings), traceback.format_exc())
    logger.warning("job_failed", extra={"state": settled.state, "code": error.code, "reason": str(error)})
    if isinstance(error, MemoryExceeded):
        # What is left below the limit may not do for the next scan, not even to start a thread: the pool makes a fresh
        # process. The row is settled, so this end is nobody's strike.
        logging.shutdown()
        os._exit(os.EX_SOFTWARE)


def _colour(bench: Bench, job: Job) -> None:
    """From a claimed job to a published derivative and its row."""
    policy = policy_for(bench.settings, job.root, job.parameters)
    with bench.database.reading() as session:
        root = session.get_one(Root, job.root)
        twin = twins.twin_result(session, job, dataclasses.asdict(policy))
        replaces = twins.replaceable(session, job)  # nobody else's is touched
    with originals.open_original(root.path, job.path) as fd:
        before = originals.stamp(fd)
        if publish.sha256_of(fd) != job.source_sha256:
            raise ScanChanged("The file is no longer the one that was recorded. The watcher takes its new content.")
        if twin is not None and _copy_twin(bench, job, root, twin, replaces):
            return
        colorizer = bench.serving.named(str(job.model_version))
        fault.point("reading")
        with _publication(bench, job, root) as publication:
            derived = derive(
                bench.settings, colorizer, fd, os.path.basename(job.path), job.source_sha256, publication,
                policy=policy, force=bool(job.parameters.get("force")), job_id=str(job.id),
            )  # fmt: skip
            if originals.stamp(fd) != before:  # since before it was hashed
                raise ScanChanged("The file changed while it was read. The watcher takes its new content.")
            state, reason = judge(bench.settings, derived.rendered, derived.proof)
            _publish(bench, job, publication, derived.extension, replaces, state, reason, derived.sidecar,
                     pixels_sha256=derived.proof.pixels_sha256, report=derived.report)  # fmt: skip


def _mode(bench: Bench) -> int | None:
    return int(bench.settings.output_mode, 8) if bench.settings.output_mode else None


def _publication(bench: Bench, job: Job, root: Root) -> publish.Publication:
    return publish.Publication(
        root.output, os.path.dirname(job.path), job_id=job.id, claim_no=job.claim_no, mode=_mode(bench)
    )


def _for_sidecar(bench: Bench, job: Job) -> sidecar.Job:
    """What the queue knows of a derivative, for its sidecar."""
    with bench.database.reading() as session:
        root, now = session.get_one(Root, job.root), database_time(session)
    return sidecar.Job(
        job_id=str(job.id), root=root.path, path=job.path, source_size=job.size_bytes, device=job.device or "",
        started_at=job.started_at or now, finished_at=now,
    )  # fmt: skip


def _publish(
    bench: Bench,
    job: Job,
    publication: publish.Publication,
    extension: bytes,
    replaces: set[str],
    state: JobState,
    reason: str,
    about: Callable[[publish.Published, sidecar.Job], dict[str, Any]],
    **fields: Any,
) -> None:
    """Record the intent, rename, write the sidecar, record the end.

    After a kill anywhere between, the next attempt knows its own file.
    """
    names: Sequence[bytes] = publish.derivative_names(job.path, extension, version=job.variant or None)
    with bench.database.reading() as session:
        names = twins.names_for(session, job, names)
    planned = publication.plan(names, replaces=replaces)
    fault.point("synchronised")
    target: dict[str, Any] = {
        "output_path": planned.path,
        "display_output_path": display(absolute(publication.output_root, planned.path)),
        "output_sha256": planned.sha256,
    }
    with bench.database.writing() as session:
        there = {twins.THERE: planned.replaces}
        jobs.renew(session, job, bench.settings.lease_s, report=there, **target)
    fault.point("intended")
    published = publication.commit(planned, replaces=replaces)
    fault.point("published")
    if bench.settings.sidecar:
        with bench.database.writing() as session:
            jobs.renew(session, job, bench.settings.lease_s)  # a zombie must not tell about another's derivative
        content = about(published, _for_sidecar(bench, job))
        sidecar.write(publication.output_root, published, content, claim_no=job.claim_no, mode=_mode(bench))
    with bench.database.writing() as session:
        jobs.finish(session, job, state, reason=reason, **target, **fields)
        fault.point("recording")
    fault.point("recorded")
    logger.info("job_finished", extra={"state": state, "output": target["display_output_path"]})


def _copy_twin(bench: Bench, job: Job, root: Root, twin: Job, replaces: set[str]) -> bool:
    """Publish another job's derivative of the same bytes for this path too; False when it is out of reach now."""
    with bench.database.reading() as session:
        twin_root = session.get_one(Root, twin.root)
    if twin.output_path is None or twin.output_sha256 is None:
        return False
    try:
        first = ask(twin_root.output, functools.partial(sidecar.read, twin_root.output, twin.output_path))
    except NoAnswer:  # whoever read the derivative would wait with that share
        return False
    if first is None and bench.settings.sidecar:
        return False
    with _publication(bench, job, root) as publication:
        if not publish.copy_into(publication, twin_root.output, twin.output_path, sha256=twin.output_sha256):
            return False
        extension = os.path.splitext(twin.output_path)[1]
        reason = f"The same bytes as job {twin.id}, whose derivative was copied."
        about = functools.partial(sidecar.of_copy, first or {})
        _publish(bench, job, publication, extension, replaces, JobState.DUPLICATE, reason, about,
                 duplicate_of=twin.id, pixels_sha256=twin.pixels_sha256, report=twin.report)  # fmt: skip
    return True
