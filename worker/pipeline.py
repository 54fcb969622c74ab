"""One job's way: claim, read, colour, verify, publish, finish. Nothing here decides twice what the record decides."""

import contextlib
import dataclasses
import functools
import logging
import os
import socket
import threading
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from model import device
from model.colorizer import Colorizer
from model.store import Store
from worker import derivative, fault, jobs, log, originals, publish, recovery, room, scans, training_runs, twins
from worker.db import Database, open_database
from worker.errors import (
    DependencyMissing,
    JobMoved,
    PhotochromError,
    ScanChanged,
    ScanMissing,
    ScanVanished,
    from_os_error,
)
from worker.serving import Serving
from worker.settings import Settings, load
from worker.tables import Job, JobState, Root, absolute, display

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What one worker process needs for every job, made once and warm."""

    settings: Settings
    database: Database
    serving: Serving
    name: str


@functools.cache
def prepare() -> Bench:
    """Load and warm everything before the first claim."""
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
    logger.info("worker_ready", extra={"worker": name, "device": colorizer.device, "model": colorizer.version.name})
    return Bench(settings, database, serving, name)


def _paused(bench: Bench) -> bool:
    if not bench.settings.retrain_pauses_colouring:
        return False
    with bench.database.reading() as session:
        return training_runs.under_way(session)


def run(job_id: int) -> None:
    """Do one job, if it is still there to do. Never raises for what is wrong with a scan: the row says it."""
    bench = prepare()
    fault.point("before_claim")
    with log.job_context(job_id):
        if _paused(bench):
            logger.info("paused_for_training")  # the row stays queued; the dispatcher sends it again afterwards
            return
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
        with _lease(bench, job):
            _settle(bench, job)
        fault.point("finished")


def _settle(bench: Bench, job: Job) -> None:
    """Work on a claimed job and put what came of it into its row."""
    try:
        try:
            _colour(bench, job)
        except JobMoved:
            raise
        except PhotochromError as error:
            seen_missing = isinstance(error, ScanVanished) and job.error_class != ScanMissing.code
            _fail(bench, job, ScanMissing(str(error)) if seen_missing else error)
        except OSError as error:
            _fail(bench, job, from_os_error(error))
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the row must say it
            _fail(bench, job, PhotochromError(f"Unexpected {type(error).__name__}: {error}"))
    except JobMoved as error:
        logger.warning("job_moved", extra={"why": str(error)})


def _fail(bench: Bench, job: Job, error: PhotochromError) -> None:
    with bench.database.writing() as session:
        settled = jobs.fail(session, job, error, jobs.strikes(bench.settings), traceback.format_exc())
    logger.warning("job_failed", extra={"state": settled.state, "code": error.code, "reason": str(error)})


@contextlib.contextmanager
def _lease(bench: Bench, job: Job) -> Iterator[None]:
    """Renew the lease in the background until the work ends."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(bench.settings.heartbeat_s):
            try:
                with bench.database.writing() as session:
                    jobs.renew(session, job, bench.settings.lease_s)
            except JobMoved:
                return  # the fence stops the work where it would do harm
            except sa.exc.SQLAlchemyError:
                logger.warning("lease_not_renewed", exc_info=True)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derived:
    """A derivative that lies in a publication, verified and not yet published."""

    extension: bytes
    rendered: derivative.Rendered
    proof: derivative.LStarReport
    report: dict[str, Any]


def derive(
    settings: Settings, colorizer: Colorizer, fd: int, name: bytes, source_sha256: str,
    publication: publish.Publication, job_id: str = "",
) -> Derived:  # fmt: skip
    """Read a scan, colour it, write the derivative, read it again and compare.

    Args:
        settings: assumed tone curve, pixel cap, output policy.
        colorizer: the net.
        fd: the original, open for reading.
        name: its file name.
        source_sha256: of its bytes.
        publication: where the derivative goes.
        job_id: for what the derivative says of its making.

    Raises:
        PhotochromError: the scan will not do, or what was written is not what was meant.
    """
    before = originals.stamp(fd)
    policy = policy_of(settings)
    origin = derivative.Origin(
        source_name=display(name),
        source_sha256=source_sha256,
        model_version=colorizer.version.name,
        weights_sha256=colorizer.version.weights_sha256,
        job_id=job_id,
    )
    max_pixels = int(settings.max_megapixels * 1e6)
    with scans.open_scan(fd, assumed_gray_trc=settings.gray_curve, max_pixels=max_pixels) as scan:
        pixels = scan.width * scan.height * scan.pages
        room.refuse_without_room(publication.fd, pixels * 3 * scan.bit_depth // 8)
        fault.point("inference")
        rendered = derivative.render(scan, colorizer, publication.fd, policy=policy, origin=origin)
        proof = derivative.verify(scan, publication.fd)
        derivative.check(rendered, proof)
        report = {**scan.describe(), "mean_chroma": rendered.mean_chroma, "lstar": proof.as_dict()}
        report["warnings"] = [*scan.warnings, *rendered.warnings]
        extension = policy.extension(scan.kind, os.path.splitext(name)[1])
    if originals.stamp(fd) != before:
        raise ScanChanged("The file changed while it was read. The watcher takes its new content.")
    return Derived(extension=extension, rendered=rendered, proof=proof, report=report)


def _colour(bench: Bench, job: Job) -> None:
    """From a claimed job to a published derivative and its row."""
    with bench.database.reading() as session:
        root = session.get_one(Root, job.root)
        twin = twins.twin_result(session, job)
        old = twins.predecessor(session, job)
    # What an earlier attempt of ours, or the job before us, may have left under our name; nobody else's is touched.
    replaces = {sha for sha in (job.output_sha256, old.output_sha256 if old else None) if sha}
    with originals.open_original(root.path, job.path) as fd:
        before = originals.stamp(fd)
        if publish.sha256_of(fd) != job.source_sha256:
            raise ScanChanged("The file is no longer the one that was recorded. The watcher takes its new content.")
        if twin is not None and _copy_twin(bench, job, root, twin, replaces):
            return
        colorizer = bench.serving.named(str(job.model_version))
        fault.point("reading")
        with _publication(bench, job, root) as publication:
            name = os.path.basename(job.path)
            derived = derive(bench.settings, colorizer, fd, name, job.source_sha256, publication, str(job.id))
            if originals.stamp(fd) != before:  # since before it was hashed
                raise ScanChanged("The file changed while it was read. The watcher takes its new content.")
            state, reason = _judge(bench.settings, derived.rendered, derived.proof)
            _publish(bench, job, publication, derived.extension, replaces, state, reason,
                     pixels_sha256=derived.proof.pixels_sha256, report=derived.report)  # fmt: skip


def _judge(settings: Settings, rendered: derivative.Rendered, proof: derivative.LStarReport) -> tuple[JobState, str]:
    """Is the derivative fit to be called done?"""
    if not proof.within:
        return JobState.NEEDS_REVIEW, f"Published, but its lightness differs from the master's: {proof.limit}"
    if not rendered.has_colour or rendered.mean_chroma < settings.review_chroma:
        return JobState.NEEDS_REVIEW, f"Published, but almost without colour (mean chroma {rendered.mean_chroma:.1f})."
    return JobState.DONE, "Coloured."


def policy_of(settings: Settings) -> derivative.Policy:
    """The output policy that the settings ask for."""
    return derivative.Policy(kind=settings.output_format, jpeg_quality=settings.jpeg_quality)


def _publication(bench: Bench, job: Job, root: Root) -> publish.Publication:
    mode = int(bench.settings.output_mode, 8) if bench.settings.output_mode else None
    return publish.Publication(root.output, os.path.dirname(job.path), job_id=job.id, claim_no=job.claim_no, mode=mode)


def _publish(
    bench: Bench,
    job: Job,
    publication: publish.Publication,
    extension: bytes,
    replaces: set[str],
    state: JobState,
    reason: str,
    **fields: Any,
) -> None:
    """Record the intent, rename, record the end: after a kill anywhere between, the next attempt knows its own file."""
    names = publish.derivative_names(job.path, extension, version=job.variant or None)
    planned = publication.plan(names, replaces=replaces)
    fault.point("synchronised")
    target: dict[str, Any] = {
        "output_path": planned.path,
        "display_output_path": display(absolute(publication.output_root, planned.path)),
        "output_sha256": planned.sha256,
    }
    with bench.database.writing() as session:
        jobs.renew(session, job, bench.settings.lease_s, **target)
    fault.point("intended")
    publication.commit(planned, replaces=replaces)
    fault.point("published")
    with bench.database.writing() as session:
        jobs.finish(session, job, state, reason=reason, **target, **fields)
    fault.point("recorded")
    logger.info("job_finished", extra={"state": state, "output": target["display_output_path"]})


def _copy_twin(bench: Bench, job: Job, root: Root, twin: Job, replaces: set[str]) -> bool:
    """Publish another job's derivative of the same bytes for this path too; False when it is not there any more."""
    with bench.database.reading() as session:
        twin_root = session.get_one(Root, twin.root)
    if twin.output_path is None or twin.output_sha256 is None:
        return False
    with _publication(bench, job, root) as publication:
        if not publish.copy_into(publication, twin_root.output, twin.output_path, sha256=twin.output_sha256):
            return False
        extension = os.path.splitext(twin.output_path)[1]
        reason = f"The same bytes as job {twin.id}, whose derivative was copied."
        _publish(bench, job, publication, extension, replaces, JobState.DUPLICATE, reason,
                 duplicate_of=twin.id, pixels_sha256=twin.pixels_sha256, report=twin.report)  # fmt: skip
    return True


def colorize_file(colorizer: Colorizer, settings: Settings, source: Path, output: Path) -> Path:
    """Colour one file without queue or database; the derivative gets a name of its own in `output`.

    Raises:
        PhotochromError: the scan was not coloured; the message says why.
    """
    folder, name = os.fsencode(source.parent), os.fsencode(source.name)
    with (
        originals.open_original(folder, name) as fd,
        publish.Publication(output, b"", job_id="file", claim_no=os.getpid()) as publication,
    ):
        derived = derive(settings, colorizer, fd, name, publish.sha256_of(fd), publication)
        names = publish.derivative_names(name, derived.extension)
        published = publication.commit(publication.plan(names))
    return Path(os.fsdecode(absolute(os.fsencode(output), published.path)))
