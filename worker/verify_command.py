"""The verb `verify`: lightness of one derivative against its master, or the bytes of everything against the record."""

import collections
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from worker.answers import real_path
from worker.commands import load_tensorflow
from worker.errors import ExitCode, PhotochromError
from worker.meanings import in_words
from worker.mounts import is_within
from worker.record import record
from worker.settings import Settings, load
from worker.tables import display

if TYPE_CHECKING:
    from worker.fixity import Checked

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("master", type=FILE, required=False)
@click.argument("derivative", type=FILE, required=False)
@click.option("--all", "everything", is_flag=True, help="Hash all recorded originals and derivatives again instead.")
@click.option("--manifest", type=FILE, help="With --all: write the originals' hashes to this file, as sha256sum does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    master: Path | None, derivative: Path | None, everything: bool, manifest: Path | None, as_json: bool
) -> None:
    """Compare the lightness L* of DERIVATIVE with that of MASTER, pixel by pixel, as both lie on disk.

    Exits 0 when it is kept within the limits (README, "What happens to your picture"), else 1. With --all, exits 0 when
    every recorded original and derivative still has the bytes of the record, else 1 after naming those that have not.
    What `photochrom roots let-go` has named is counted, and no fault. A folder that is away is told once; where nothing
    else is wrong, it exits 6 for a watched folder, 7 for an output.
    """
    if everything and master is not None:
        raise click.UsageError("Name MASTER and DERIVATIVE, or say --all: not both.")
    if everything:
        _verify_all(manifest, as_json)
        return
    if manifest is not None:
        raise click.UsageError("--manifest goes with --all.")
    if master is None or derivative is None:
        raise click.UsageError("Name MASTER and DERIVATIVE, or say --all.")
    load_tensorflow()
    from worker import derivative as pictures
    from worker import scans

    scans.set_up_libvips(threads=os.cpu_count() or 1)
    settings = load()
    max_pixels = int(settings.max_megapixels * 1e6)
    report = pictures.verify(master, derivative, assumed_gray_trc=settings.gray_curve, max_pixels=max_pixels)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        verdict = "kept" if report.within else "NOT kept"
        click.echo(
            f"Lightness is {verdict}: |ΔL*| max {report.max:.4f}, p99.9 {report.p99_9:.4f}, mean {report.mean:.4f} "
            f"over {report.pixels} pixels ({report.limit})"
        )
    if not report.within:
        sys.exit(ExitCode.FAILED)


def _verify_all(manifest: Path | None, as_json: bool) -> None:
    from worker import fixity

    counts: collections.Counter[str] = collections.Counter()
    away: collections.Counter[tuple[str, bytes]] = collections.Counter()
    findings: list[dict[str, object]] = []  # for JSON only: there may be one for each file
    with contextlib.ExitStack() as stack:
        settings = load()
        database = stack.enter_context(record(settings))
        write = stack.enter_context(_writing(manifest, settings)) if manifest else None
        for checked in fixity.check_all(database):
            counts[f"{checked.what} {checked.verdict}"] += 1
            if write and checked.what == "original" and checked.sha256:
                write(fixity.manifest_line(checked.path, checked.sha256))
            if checked.verdict == "offline":
                away[checked.what, checked.folder] += 1
            elif checked.verdict not in _WELL and as_json:
                findings.append(checked.as_dict())
            elif checked.verdict not in _WELL:
                click.echo(_line(checked))
    _tell(counts, away, findings if as_json else None)
    if any(not told.endswith((" ok", " let go", " offline")) for told in counts):
        sys.exit(ExitCode.FAILED)
    if away:
        sys.exit(ExitCode.BAD_ROOT if any(what == "original" for what, _ in away) else ExitCode.BAD_OUTPUT)


@contextlib.contextmanager
def _writing(manifest: Path, settings: Settings) -> Iterator[Callable[[bytes], None]]:
    """Writes lines to the manifest; never in a watched folder, where it might be an original's."""
    real = os.path.realpath(manifest)
    for root in settings.all_roots:
        if is_within(real, os.fsdecode(real_path(os.fsencode(root.path)))):  # one may not answer
            raise PhotochromError(f"{manifest} lies in the watched folder {root.path}: write the manifest elsewhere.")
    with _named(manifest):
        file = manifest.open("wb")

    def write(line: bytes) -> None:
        """One line more."""
        with _named(manifest):
            file.write(line)

    try:
        yield write
    finally:
        with _named(manifest):
            file.close()


@contextlib.contextmanager
def _named(manifest: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PhotochromError(f"{manifest} cannot be written ({in_words(error)}): name another file.") from error


def _tell(
    counts: Mapping[str, int], away: Mapping[tuple[str, bytes], int], findings: list[dict[str, object]] | None
) -> None:
    """The folders that are away, one line each, and the counts; as JSON with the findings, if there are such."""
    if findings is not None:
        findings += [
            {"what": "folder", "of": what, "path": display(folder), "verdict": "offline", "files": count}
            for (what, folder), count in away.items()
        ]
        click.echo(json.dumps({"counts": counts, "findings": findings}, indent=2, ensure_ascii=False))
        return
    for (what, folder), count in away.items():
        files = f"{count} {what}s were" if count > 1 else f"1 {what} was"
        click.echo(_AWAY[what].format(folder=display(folder), files=files))
    click.echo(", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "Nothing is recorded yet.")


#: what is no finding
_WELL: Final = frozenset({"ok", "let go"})
_AWAY: Final = {
    "original": "offline: the watched folder {folder} is not there, another one is in its place, or it does "
    "not answer; {files} not looked at. Mount it, then do this again.",
    "derivative": "offline: the output folder {folder} is not there, or holds none of its derivatives, or does not "
    "answer; {files} not looked at. Mount it, then do this again; what was deleted `photochrom retry ID` makes again "
    "from its original.",
}


def _line(checked: "Checked") -> str:
    told = f"{checked.verdict}: the {checked.what} {display(checked.path)} (job {checked.job_id})"
    if (checked.what, checked.verdict) == ("derivative", "missing"):
        again = f"`photochrom retry {checked.job_id}` makes it again from the original"
        told += f"; {again if checked.again else 'nor is its original there: restore either from a backup'}"
    if (checked.what, checked.verdict) == ("original", "missing"):
        told += "; restore it, or say with `photochrom roots let-go PATH` that it was taken away on purpose"
    return told
