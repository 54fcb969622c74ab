"""A claimed job's way out: is there a name for it, the intent in the record, the rename, the sidecar, the end."""

import dataclasses
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from worker import fault, jobs, leases, sidecar, twins
from worker.answers import NoAnswer, ask
from worker.db import Database
from worker.overview import database_time
from worker.publish import Planned, Publication, Published, copy_into, derivative_names, remove_left_behind
from worker.settings import Settings
from worker.tables import Job, JobState, Root, absolute, display

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outlet:
    """Where a claimed job's derivative goes, and what it may replace there: nothing but what is ours.

    Attributes:
        database: where the record is.
        settings: modes, sidecars, leases.
        job: claimed.
        root: of the job.
        replaces: sha256 of files that earlier attempts at this scan, or at its older content, may have left.
    """

    database: Database
    settings: Settings
    job: Job
    root: Root
    replaces: set[str]

    @classmethod
    def of(cls, database: Database, settings: Settings, job: Job, root: Root) -> "Outlet":
        """That of a job, after which no worker that stood still over older content can publish that any more."""
        with database.reading() as session:
            replaces, older = twins.replaceable(session, job), twins.cut_short(session, job)
        for old in older:  # without its temporary file there is nothing that it could rename
            remove_left_behind(root.output, os.path.dirname(job.path), job_id=old, claim_no=sys.maxsize)
        return cls(database, settings, job, root, replaces)

    @property
    def _mode(self) -> int | None:
        return int(self.settings.output_mode, 8) if self.settings.output_mode else None

    def open(self) -> Publication:
        """A temporary file for the derivative."""
        directory = os.path.dirname(self.job.path)
        return Publication(self.root.output, directory, job_id=self.job.id, claim_no=self.job.claim_no, mode=self._mode)

    def refuse_blocked(self, publication: Publication, extension: bytes) -> None:
        """See that the derivative and its sidecar can get their names, as things are, before anything is computed.

        Raises:
            OutputBlocked: what is not ours has every name of the derivative, or that of its sidecar.
        """
        with self.database.reading() as session:
            free = twins.names_for(session, self.job, self._names(extension))
        name = publication.look(free, replaces=self.replaces)
        if self.settings.sidecar:
            sidecar.refuse_foreign(self.root.output, name)

    def _names(self, extension: bytes) -> Sequence[bytes]:
        return derivative_names(self.job.path, extension, version=self.job.variant or None)

    def publish(
        self,
        publication: Publication,
        extension: bytes,
        state: JobState,
        reason: str,
        about: Callable[[Published, sidecar.Job], dict[str, Any]],
        **fields: Any,
    ) -> None:
        """Record the intent, rename, write the sidecar, record the end.

        After a kill anywhere between, the next attempt knows its own file.
        """
        planned, target = self._intend(publication, self._names(extension))
        fault.point("intended")
        published = publication.commit(planned, replaces=self.replaces)
        fault.point("published")
        if self.settings.sidecar:
            content = about(published, self._for_sidecar())
            sidecar.write(publication.output_root, published, content, claim_no=self.job.claim_no, mode=self._mode,
                          fence=self._renew)  # fmt: skip
        self._withdraw_others(planned)
        with self.database.writing() as session:
            jobs.finish(session, self.job, state, reason=reason, **target, **fields)
            fault.point("recording")
        fault.point("recorded")
        logger.info("job_finished", extra={"state": state, "output": target["display_output_path"]})

    def _intend(self, publication: Publication, names: Sequence[bytes]) -> tuple[Planned, dict[str, Any]]:
        """Choose a name and record that the derivative is about to get it; what is recorded of it comes back too.

        Two scans at work may want one name. Looking at names and files takes as long as hashing does, and no
        transaction is open meanwhile; so the name is looked at again as it is recorded, and another is chosen when it
        was taken since.
        """
        while True:
            with self.database.reading() as session:
                free = twins.names_for(session, self.job, names)
            planned = publication.plan(free, replaces=self.replaces)
            fault.point("synchronised")
            target = {
                "output_path": planned.path,
                "display_output_path": display(absolute(publication.output_root, planned.path)),
                "output_sha256": planned.sha256,
            }
            with self.database.writing() as session:
                leases.take_turns(session, planned.path)
                if planned.path in twins.names_for(session, self.job, names):
                    there = {twins.THERE: planned.replaces}
                    jobs.renew(session, self.job, self.settings.lease_s, report=there, **target)
                    return planned, target

    def _renew(self) -> None:
        """A zombie must not tell about another's derivative, nor take one away."""
        with self.database.writing() as session:
            jobs.renew(session, self.job, self.settings.lease_s)

    def _for_sidecar(self) -> sidecar.Job:
        """What the queue knows of a derivative, for its sidecar."""
        job = self.job
        with self.database.reading() as session:
            now = database_time(session)
        return sidecar.Job(
            job_id=str(job.id), root=self.root.path, path=job.path, source_size=job.size_bytes,
            device=job.device or "", started_at=job.started_at or now, finished_at=now,
        )  # fmt: skip

    def _withdraw_others(self, new: Planned) -> None:
        """A scan has one derivative: that of its older content goes, where it had another name."""
        with self.database.reading() as session:
            outdated = twins.outdated(session, self.job, new.path)
        if outdated:
            self._renew()
        for path, had in outdated.items():
            # a share without upper and lower case has the new one under both names
            sidecar.withdraw(self.root.output, path, had - {new.sha256})

    def copy(self, twin: Job) -> bool:
        """Publish another job's derivative of the same bytes for this path too; False when it is out of reach now."""
        with self.database.reading() as session:
            output = session.get_one(Root, twin.root).output
        if twin.output_path is None or twin.output_sha256 is None:
            return False
        try:
            first = ask(output, functools.partial(sidecar.read, output, twin.output_path))
        except NoAnswer:  # whoever read the derivative would wait with that share
            return False
        if first is None and self.settings.sidecar:
            return False
        with self.open() as publication:
            extension = os.path.splitext(twin.output_path)[1]
            self.refuse_blocked(publication, extension)
            spared_bytes = self.settings.min_free_mib << 20
            if not copy_into(
                publication, output, twin.output_path, sha256=twin.output_sha256, spared_bytes=spared_bytes
            ):
                return False
            reason = f"The same bytes as job {twin.id}, whose derivative was copied."
            about = functools.partial(sidecar.of_copy, first or {})
            self.publish(publication, extension, JobState.DUPLICATE, reason, about,
                         duplicate_of=twin.id, pixels_sha256=twin.pixels_sha256, report=twin.report)  # fmt: skip
        return True
