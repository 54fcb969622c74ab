"""The JSON file beside each derivative: where it comes from, how it was made, the proof of its L*.

Its form is `sidecar_v1.schema.json` beside this module (JSON Schema 2020-12); a change that breaks readers gets a new
number. Names and paths that are not valid UTF-8 are written with U+FFFD, with their bytes in hexadecimal beside them.
"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from worker.errors import OutputBlocked
from worker.marking import PRODUCT, Origin
from worker.names import SIDECAR_SUFFIX
from worker.output_folder import open_directory, sha256_of_name, write_all
from worker.policy import Policy
from worker.proof import LStarReport, Rendered
from worker.publish import Publication, Published, output_errors
from worker.scans import Scan

logger = logging.getLogger(__name__)

SCHEMA: Final = "photochrom-sidecar-1"
SCHEMA_FILE: Final = Path(__file__).with_name("sidecar_v1.schema.json")
_LIBRARIES: Final = (
    "numpy",
    "opencv-python-headless",
    "pyvips",
    "pyvips-binary",
    "tifffile",
    "imagecodecs",
    "exiv2",
    "keras",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What only the queue knows of a derivative."""

    job_id: str
    root: bytes
    path: bytes  # of the source, below the root
    source_size: int
    device: str
    started_at: datetime.datetime
    finished_at: datetime.datetime


def document(
    scan: Scan, rendered: Rendered, report: LStarReport, policy: Policy, origin: Origin, published: Published, job: Job
) -> dict[str, Any]:
    """The sidecar's content, ready for JSON; form: `sidecar_v1.schema.json`."""
    proof = {name: value for name, value in report.as_dict().items() if name in _PROOF}
    return {
        "schema": SCHEMA,
        "source": {**_named(job.path), "root": _named(job.root)["path"], "sha256": origin.source_sha256,
                   "size": job.source_size, **scan.describe()},
        "derivative": {**_named(published.path), "sha256": published.sha256, "size": published.size,
                       "pixels_sha256": report.pixels_sha256, "width": rendered.width, "height": rendered.height,
                       "bit_depth": rendered.bit_depth, "kind": rendered.kind, "pages": rendered.pages,
                       "profile": policy.profile or "sRGB", "mean_chroma": rendered.mean_chroma},
        "model": {"version": origin.model_version, "weights_sha256": origin.weights_sha256, "device": job.device},
        "parameters": dataclasses.asdict(policy),
        "lightness": proof,
        "warnings": list(dict.fromkeys([*scan.warnings, *rendered.warnings])),
        "software": {"name": PRODUCT, "version": _version("photochrom"),
                     "libraries": {name: _version(name) for name in _LIBRARIES}},
        "job": {"id": job.job_id, "started_at": _utc(job.started_at), "finished_at": _utc(job.finished_at)},
        "notice": origin.sentence,
    }  # fmt: skip


_PROOF: Final = ("max", "p99_9", "mean", "pixels", "limit", "within")


def of_copy(content: Mapping[str, Any], published: Published, job: Job) -> dict[str, Any]:
    """The sidecar of a derivative that was copied for the same bytes under another path.

    Args:
        content: the first one's sidecar.
        published: the copy.
        job: the copy's job.
    """
    moments = {"started_at": _utc(job.started_at), "finished_at": _utc(job.finished_at)}
    return {
        **content,
        "source": {**_without_path(content["source"]), **_named(job.path), "root": _named(job.root)["path"]},
        "derivative": {**_without_path(content["derivative"]), **_named(published.path)},
        "job": {"id": job.job_id, **moments},
    }


def _without_path(names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name not in ("path", "path_hex")}


def read(output_root: bytes, derivative: bytes) -> dict[str, Any] | None:
    """The sidecar of a derivative; None when there is none that can be read."""
    try:
        with open(os.path.join(output_root, derivative + SIDECAR_SUFFIX), "rb", opener=_without_waiting) as file:
            content = json.load(file)
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return None
    return content if all(isinstance(content.get(part), dict) for part in ("source", "derivative")) else None


def write(
    output_root: bytes | str | Path,
    published: Published,
    content: Mapping[str, Any],
    *,
    claim_no: int,
    mode: int | None = None,
    fence: Callable[[], object] = lambda: None,
) -> bytes:
    """Publish the sidecar beside its derivative, atomically; an older one of the same derivative is replaced.

    Args:
        output_root: of the derivative.
        published: the derivative.
        content: from `document`.
        claim_no: for the temporary name.
        mode: of the file; None for 0666 without the umask.
        fence: raises when the claim is void; asked when the temporary file is there, which the next claim removes.

    Returns:
        Its path below the output root.

    Raises:
        OutputFull: no room.
        OutputBlocked: a file that is not ours has the name, or the folder cannot be written.
    """
    path = published.path + SIDECAR_SUFFIX
    data = json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"
    job_id = str(content["job"]["id"])
    with Publication(output_root, os.path.dirname(path), job_id=job_id, claim_no=claim_no, mode=mode) as publication:
        with output_errors():
            write_all(publication.fd, data)
        fence()
        ours = _sha256_of_ours(os.path.join(os.fsencode(output_root), path), content)
        publication.commit(publication.plan([path], replaces=ours), replaces=ours)
    return path


def refuse_foreign(output_root: bytes, derivative: bytes) -> None:
    """See that a derivative's sidecar can be written, as things are.

    Raises:
        OutputBlocked: what is not ours has its name.
    """
    path = os.path.join(output_root, derivative + SIDECAR_SUFFIX)
    if os.path.lexists(path) and not _sha256_of_ours(path, {"derivative": _named(derivative)}):
        raise OutputBlocked(f"{os.fsdecode(path)!r} is the sidecar of another derivative: move it away.")


def _without_waiting(path: Any, flags: int) -> int:
    """A pipe that somebody put there would never open, and a link leads elsewhere."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def withdraw(output_root: bytes, derivative: bytes, sha256s: Collection[str]) -> None:
    """Remove a derivative of ours that another one has taken the place of, and its sidecar; what was changed stays.

    Args:
        output_root: of the derivative.
        derivative: its path below.
        sha256s: that it may have.
    """
    folder, _, name = derivative.rpartition(b"/")
    with output_errors():
        try:
            directory = open_directory(output_root, folder, create=False)
        except FileNotFoundError:
            return
        try:
            if sha256_of_name(directory, name) in sha256s:
                os.unlink(name, dir_fd=directory)
                with suppress(OutputBlocked):
                    if _sha256_of_ours(
                        os.path.join(output_root, derivative + SIDECAR_SUFFIX), {"derivative": _named(derivative)}
                    ):
                        os.unlink(name + SIDECAR_SUFFIX, dir_fd=directory)
        except (FileNotFoundError, PermissionError):  # gone, or locked against us: the new one is there all the same
            logger.warning("not_withdrawn", extra={"path": os.fsdecode(derivative)}, exc_info=True)
        finally:
            os.close(directory)


def _sha256_of_ours(path: bytes, content: Mapping[str, Any]) -> frozenset[str]:
    """The sha256 of the file there, if it is a sidecar of the same derivative."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            data = file.read(1 << 20)
        there = json.loads(data)
        same = (
            there["schema"].startswith("photochrom-sidecar-")
            and there["derivative"]["path"] == content["derivative"]["path"]
        )
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputBlocked(f"{os.fsdecode(path)!r} is no sidecar of ours ({error}): move it away.") from error
    return frozenset([hashlib.sha256(data).hexdigest()]) if same else frozenset()


def _named(path: bytes) -> dict[str, str]:
    text = path.decode("utf-8", "replace")
    return {"path": text} if text.encode() == path else {"path": text, "path_hex": path.hex()}


def _utc(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
