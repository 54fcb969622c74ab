"""From an open original to a verified derivative that waits for its name; the queue and single files go this way."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.colorizer import Colorizer
from worker import derivative, fault, originals, publish, room, scans, sidecar
from worker.errors import ScanChanged
from worker.policy import Policy, policy_for
from worker.settings import Settings
from worker.tables import JobState, absolute, display


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derived:
    """A derivative that lies in a publication, verified and not yet published."""

    extension: bytes
    scan: scans.Scan
    rendered: derivative.Rendered
    proof: derivative.LStarReport
    policy: Policy
    origin: derivative.Origin

    @property
    def report(self) -> dict[str, Any]:
        """What the row keeps of it: the scan, the parameters, the proof, the warnings."""
        return {
            **self.scan.describe(),
            "parameters": dataclasses.asdict(self.policy),
            "mean_chroma": self.rendered.mean_chroma,
            "lstar": self.proof.as_dict(),
            "warnings": list(dict.fromkeys([*self.scan.warnings, *self.rendered.warnings])),
        }

    def sidecar(self, published: publish.Published, job: sidecar.Job) -> dict[str, Any]:
        """What the file beside it tells, once it is published."""
        return sidecar.document(self.scan, self.rendered, self.proof, self.policy, self.origin, published, job)


def derive(
    settings: Settings, colorizer: Colorizer, fd: int, name: bytes, source_sha256: str,
    publication: publish.Publication, *, policy: Policy, force: bool = False, job_id: str = "",
    expect: Callable[[bytes], None] = lambda extension: None,
) -> Derived:  # fmt: skip
    """Read a scan, colour it, write the derivative, read it again and compare.

    Args:
        settings: assumed tone curve, pixel cap.
        colorizer: the net.
        fd: the original, open for reading.
        name: its file name.
        source_sha256: of its bytes.
        publication: where the derivative goes.
        policy: how it is coloured and written.
        force: colour also what is in colour already, bitonal or blank.
        job_id: for what the derivative says of its making.
        expect: gets the derivative's suffix before anything is computed; raises what speaks against it.

    Raises:
        PhotochromError: the scan will not do, or what was written is not what was meant.
    """
    before = originals.stamp(fd)
    origin = derivative.Origin(
        source_name=display(name),
        source_sha256=source_sha256,
        model_version=colorizer.version.name,
        weights_sha256=colorizer.version.weights_sha256,
        job_id=job_id,
    )
    max_pixels = int(settings.max_megapixels * 1e6)
    with scans.open_scan(fd, assumed_gray_trc=settings.gray_curve, max_pixels=max_pixels, force=force) as scan:
        extension = policy.extension(scan.kind, os.path.splitext(name)[1])
        expect(extension)
        # pages may differ in size
        wanted = max(scan.header.total_pixels, scan.width * scan.height) * 3 * scan.bit_depth // 8
        # a message may be out since before its folder paused: what is to stay free is no room
        room.refuse_without_room(publication.fd, wanted, settings.min_free_mib << 20)
        fault.point("inference")
        rendered = derivative.render(scan, colorizer, publication.fd, policy=policy, origin=origin)
        proof = derivative.verify(scan, publication.fd, max_pixels=max_pixels)
        derivative.check(rendered, proof)
    if originals.stamp(fd) != before:
        raise ScanChanged("The file changed while it was read. The watcher takes its new content.")
    return Derived(extension=extension, scan=scan, rendered=rendered, proof=proof, policy=policy, origin=origin)


def judge(settings: Settings, rendered: derivative.Rendered, proof: derivative.LStarReport) -> tuple[JobState, str]:
    """Is a derivative fit to be called done? Its state, and why."""
    if not proof.within:
        return JobState.NEEDS_REVIEW, f"Published, but its lightness differs from the master's: {proof.limit}"
    if not rendered.has_colour or rendered.mean_chroma < settings.review_chroma:
        return JobState.NEEDS_REVIEW, f"Published, but almost without colour (mean chroma {rendered.mean_chroma:.1f})."
    return JobState.DONE, "Coloured."


def colorize_file(
    colorizer: Colorizer, settings: Settings, source: Path, output: Path, parameters: dict[str, Any]
) -> Path:
    """Colour one file without queue or database; the derivative gets a name of its own in `output`.

    Args:
        colorizer: the net.
        settings: tone curve, pixel cap, output policy.
        source: the scan.
        output: an existing folder.
        parameters: choices for this file, by the settings' names, and `force`.

    Raises:
        PhotochromError: the scan was not coloured; the message says why.
    """
    folder, name = os.fsencode(source.parent), os.fsencode(source.name)
    with (
        originals.open_original(folder, name) as fd,
        publish.Publication(output, b"", job_id="file", claim_no=os.getpid()) as publication,
    ):
        at_once = settings.model_copy(update={"min_free_mib": 0})  # the reserve is for what goes on by itself
        derived = derive(
            at_once, colorizer, fd, name, publish.sha256_of(fd), publication,
            policy=policy_for(settings, parameters=parameters), force=bool(parameters.get("force")),
        )  # fmt: skip
        names = publish.derivative_names(name, derived.extension)
        published = publication.commit(publication.plan(names))
    return Path(os.fsdecode(absolute(os.fsencode(output), published.path)))
