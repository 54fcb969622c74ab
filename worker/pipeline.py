"""One job's way: claim, read, colour, verify, publish, finish. Nothing here decides twice what the record decides."""

import dataclasses
import functools
import logging
import os
import socket
import traceback
import uuid

from sqlalchemy.orm import Session

from model import device
from model.store import Store
from worker import fault, jobs, limits, log, originals, publish, recovery, scans, strikes, training_runs, twins
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
from worker.holding import held, settle
from worker.identity import is_recorded_here, shares_of
from worker.meanings import from_exception, from_os_error
from worker.mounts import share_away
from worker.policy import policy_for
from worker.publishing import Outlet
from worker.serving import Serving
from worker.settings import Settings, load
from worker.tables import FileState, Job, Root, SourceFile, absolute, display

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


def _after_change(session: Session, job: Job, error: PhotochromError) -> PhotochromError:
    """What an error means for a scan that changed: the watcher takes its new content, or leaves it alone since."""
    if not isinstance(error, ScanChanged):
        return error
    file = session.get_one(SourceFile, job.source_file_id)
    if file.state is FileState.IGNORED:
        return ScanIgnored(f"The file is no longer the one that was recorded, and is left alone now. {file.reason}")
    read_again(session, file.id)  # nothing else about it need have changed, and then no scan would see it
    return error


def _fail(bench: Bench, job: Job, error: PhotochromError) -> None:
    rules, tail = strikes.in_force(bench.settings), traceback.format_exc()
    settled = settle(bench.database, lambda now: jobs.fail(now, job, _after_change(now, job, error), rules, tail))
    logger.warning("job_failed", extra={"state": settled.state, "code": error.code, "reason": settled.error_message})
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
    outlet = Outlet.of(bench.database, bench.settings, job, root)
    with originals.open_original(root.path, job.path) as fd:
        before = originals.stamp(fd)
        if publish.sha256_of(fd) != job.source_sha256:
            raise ScanChanged("The file is no longer the one that was recorded. The watcher takes its new content.")
        if twin is not None and outlet.copy(twin):
            return
        colorizer = bench.serving.named(str(job.model_version))
        fault.point("reading")
        with outlet.open() as publication:
            derived = derive(
                bench.settings, colorizer, fd, os.path.basename(job.path), job.source_sha256, publication,
                policy=policy, force=bool(job.parameters.get("force")), job_id=str(job.id),
                expect=functools.partial(outlet.refuse_blocked, publication),
            )  # fmt: skip
            if originals.stamp(fd) != before:  # since before it was hashed
                raise ScanChanged("The file changed while it was read. The watcher takes its new content.")
            state, reason = judge(bench.settings, derived.rendered, derived.proof)
            outlet.publish(publication, derived.extension, state, reason, derived.sidecar,
                           pixels_sha256=derived.proof.pixels_sha256, report=derived.report)  # fmt: skip
