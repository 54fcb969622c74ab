"""The verb `verify`: lightness of one derivative against its master, or the bytes of everything against the record."""

import collections
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.commands import load_tensorflow
from worker.db import open_database, refuse_unmigrated
from worker.errors import ExitCode
from worker.settings import load
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
    every recorded original and derivative still has the bytes of the record, else 1 after naming those that have not;
    6 when nothing is wrong but that a watched folder is offline, whose originals were not looked at.
    """
    if everything:
        _verify_all(manifest, as_json)
        return
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

    database = open_database(load().database)
    refuse_unmigrated(database)
    counts: collections.Counter[str] = collections.Counter()
    findings: list[dict[str, object]] = []  # for JSON only: of a lost share there is one for each file
    verdicts = set[str]()
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(manifest.open("wb")) if manifest else None
        for checked in fixity.check_all(database):
            counts[f"{checked.what} {checked.verdict}"] += 1
            if lines and checked.what == "original" and checked.sha256:
                lines.write(fixity.manifest_line(checked))
            if checked.verdict == "ok" or (checked.what, checked.verdict) == ("original", "offline"):
                continue  # of a folder that is away, one line is enough
            verdicts.add(checked.verdict)
            if as_json:
                findings.append(checked.as_dict())
            else:
                click.echo(_line(checked))
    if as_json:
        click.echo(json.dumps({"counts": counts, "findings": findings}, indent=2, ensure_ascii=False))
    else:
        click.echo(", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "Nothing is recorded yet.")
    if verdicts:
        sys.exit(ExitCode.BAD_ROOT if verdicts == {"offline"} else ExitCode.FAILED)


def _line(checked: "Checked") -> str:
    if checked.verdict == "offline":
        return (
            f"offline: the watched folder {display(checked.path)} is not there, or another one is in its place; its "
            "originals were not looked at. Mount it, then do this again."
        )
    return f"{checked.verdict}: the {checked.what} {display(checked.path)} (job {checked.job_id})"
