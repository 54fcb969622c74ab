"""The verbs about versions of the generator: which there are, which one serves, and how that is changed."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from model import registry
from model.registry import Version, WeightsError
from model.store import Store
from worker import fitness, serving, versions
from worker import recolor as recolouring
from worker.db import has_tables, made
from worker.errors import OutputUnwritable, VersionRefused, WeightsBroken
from worker.learning_tables import CHAMPION, VersionState
from worker.settings import Settings, load


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise WeightsBroken(str(error)) from error


@click.group("models")
def models() -> None:
    """Versions of the generator: list, show, promote, rollback, export, import."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json: bool) -> None:
    """All versions; the one with the alias `champion` colours new scans."""
    with _errors():
        rows = listing(load())
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        problem = f"   DOES NOT LOAD: {row['problem']}" if row["problem"] else ""
        click.echo(
            f"{row['version']:<32} {row['alias'] or '':<9} {row['state']:<10} {row['jobs']:>7} jobs   "
            f"{row['created_at'] or 'shipped'}{problem}"
        )


def listing(settings: Settings) -> list[dict[str, Any]]:
    """Every version on disk or in the record, as `models list --json` prints it.

    Raises:
        WeightsError: there is no shipped version.
    """
    shipped = registry.shipped()
    rows = {name: _row(name, shipped) for name in Store(settings.models).names()}
    chosen: str | None = None
    if has_tables(settings.database):
        with made(settings.database) as database, database.reading() as session:
            chosen, uses = versions.champion(session), versions.derivatives(session)
            for known in versions.all_versions(session):
                rows.setdefault(known.version, _row(known.version, shipped) | {"problem": "its folder is missing"})
                rows[known.version] |= {
                    "state": known.state, "parent": known.parent, "weights_sha256": known.weights_sha256,
                    "created_at": known.created_at.isoformat(timespec="seconds"),
                    "verdict": known.verdict.get("outcome"), "problem": known.problem or rows[known.version]["problem"],
                }  # fmt: skip
            for name, count in uses.items():
                rows.setdefault(name, _row(name, shipped) | {"problem": "its folder is missing"})["jobs"] = count
    champion = chosen or shipped.name
    for name, row in rows.items():
        row["alias"] = CHAMPION if name == champion else None
    return list(rows.values())


def _row(name: str, shipped: Version) -> dict[str, Any]:
    """What is known of a version without the record."""
    return {
        "version": name, "alias": None, "state": "shipped" if name == shipped.name else "unrecorded", "parent": None,
        "weights_sha256": shipped.weights_sha256 if name == shipped.name else None, "created_at": None,
        "verdict": None, "problem": "", "jobs": 0,
    }  # fmt: skip


@models.command()
@click.argument("version")
def show(version: str) -> None:
    """Everything about VERSION, as JSON: its record on disk, its verdict, who promoted it and why."""
    settings = load()
    with _errors():
        opened = Store(settings.models).open(version)
        row = next((row for row in listing(settings) if row["version"] == version), {})
    events: list[dict[str, Any]] = []
    verdict: dict[str, Any] = {}
    if has_tables(settings.database):
        with made(settings.database) as database, database.reading() as session:
            events = [
                {"at": e.at.isoformat(timespec="seconds"), "action": e.action, "version": e.version,
                 "previous": e.previous, "actor": e.actor, "reason": e.reason}
                for e in versions.events(session, version)
            ]  # fmt: skip
            verdict = next((v.verdict for v in versions.all_versions(session) if v.version == version), {})
    told = row | {"directory": str(opened.directory), "config": opened.config, "verdict": verdict, "events": events}
    click.echo(json.dumps(told, indent=2))


@models.command()
@click.argument("version")
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the audit.")
@click.option("--force", is_flag=True, help="Even a version that the gate rejected.")
def promote(version: str, reason: str, force: bool) -> None:
    """Make VERSION the champion: workers colour with it from their next scan on. Old derivatives stay.

    It is loaded and checked in a fresh process first.
    """
    settings = load()
    with _errors():
        before = promote_version(settings, version, actor=versions.operator(), reason=reason, force=force)
    click.echo(f"Version {version} is the champion now, {before} was. Back again: photochrom models rollback")


def promote_version(settings: Settings, name: str, *, actor: str, reason: str, force: bool = False) -> str:
    """Check a version in a fresh process, record it and make it the champion; returns the champion before.

    Raises:
        WeightsError: it is not there.
        VersionRefused: it is not fit to serve, was rejected by the gate, or is the champion already.
    """
    version = Store(settings.models).open(name)
    found = fitness.check(version.directory)
    if found.problem or (found.failed and not force):
        why = found.problem or "; ".join(found.failed)
        raise VersionRefused(f"Version {name} is not fit to serve: {why}. The champion stays.")
    shipped = registry.shipped()
    with made(settings.database) as database, database.writing() as session:
        for each in (shipped, version):
            row = versions.record(session, each.name, directory=str(each.directory),
                                  weights_sha256=each.weights_sha256, state=VersionState.CANDIDATE)  # fmt: skip
        if row.state is VersionState.REJECTED and not force:
            raise VersionRefused(
                f"The gate rejected version {name}; see `photochrom models show {name}`. To serve it all the same, "
                "add --force."
            )
        versions.note_problem(session, name, "")
        return versions.promote(session, name, shipped=shipped.name, actor=actor, reason=reason)


@models.command()
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the audit.")
def rollback(reason: str) -> None:
    """Make the champion before the present one the champion again, in one step. Old derivatives stay."""
    settings = load()
    with _errors():
        shipped = registry.shipped().name
        with made(settings.database) as database:
            with database.reading() as session:
                now = versions.champion(session) or shipped
                target = versions.before(session, now)
            if target is None:
                raise VersionRefused(
                    f"There was no champion before {now}; `photochrom models list` names all versions."
                )
            problem = fitness.check(Store(settings.models).open(target).directory).problem
            if problem:
                raise VersionRefused(
                    f"Version {target} does not load: {problem}. The champion stays {now}. Restore the folder of "
                    f"{target}, or promote another version: `photochrom models list` names them all."
                )
            with database.writing() as session:
                if (versions.champion(session) or shipped) != now:
                    raise VersionRefused(f"{now} is no longer the champion: it was changed meanwhile. Look again.")
                versions.promote(session, target, shipped=shipped, actor=versions.operator(), reason=reason,
                                 action="rollback")  # fmt: skip
    click.echo(f"Version {target} is the champion again, {now} was.")


@models.command()
@click.argument("version")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def export(version: str, file: Path) -> None:
    """Write VERSION as one tar FILE, for another installation."""
    store = Store(load().models)
    with _errors():
        try:
            store.export(store.open(version), file)
        except OSError as error:
            raise OutputUnwritable(f"{file} cannot be written ({error.strerror}). Name another file.") from error
    click.echo(f"{file}: import it elsewhere with `photochrom models import {file.name}`.")


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_(file: Path) -> None:
    """Take a version from FILE, made by `models export`. It does not serve until it is promoted."""
    settings = load()
    with _errors(), made(settings.database) as database:
        with database.reading() as session:
            known = {row.version: row.weights_sha256 for row in versions.all_versions(session)}
        version = Store(settings.models).take(file, known)
        with database.writing() as session:
            versions.record(session, version.name, directory=str(version.directory),
                            weights_sha256=version.weights_sha256, state=VersionState.CANDIDATE,
                            parent=version.config.get("training", {}).get("parent"))  # fmt: skip
    click.echo(f"Version {version.name} is here. Next: photochrom models promote {version.name}")


@click.command()
@click.argument("paths", metavar="[PATH]…", type=click.Path(path_type=Path), nargs=-1)
@click.option("--model", help="The version to colour with [default: the champion].")
@click.option("--folder", type=click.Path(path_type=Path), multiple=True, help="Only scans in this folder and below.")
@click.option("--strength", type=click.FloatRange(0, 1), help="Of the colours: 0 gray, 1 as the model gives them.")
@click.option("--saturation", type=click.FloatRange(0, 3), help="Factor on the colours' chroma.")
@click.option("--temperature", type=click.FloatRange(-1, 1), help="-1 cooler, 1 warmer.")
@click.option("--tone", type=click.Choice(["drop", "preserve"]), help="What becomes of a toned print's own tint.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and how long it would take.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recolor(
    paths: tuple[Path, ...], model: str | None, folder: tuple[Path, ...], dry_run: bool, as_json: bool, **controls: Any
) -> None:
    """Colour scans again with another version or other controls, beside their present derivatives: all, or PATH….

    The new derivatives are named `<stem>__color@<version>`, with the controls that were given; the work waits behind
    all other scans.
    """
    settings = load()
    with _errors(), made(settings.database) as database:
        version = (Store(settings.models).open(model) if model else serving.chosen(settings)).name
        with database.reading() as session:
            where = recolouring.places(session, [os.fsencode(path) for path in (*paths, *folder)])
        given = {name: value for name, value in controls.items() if value is not None}
        wanted = recolouring.Wanted(version, given)
        planned = recolouring.plan(database, wanted, where)
        submitted = 0 if dry_run else recolouring.submit(database, wanted, where)
    duration_s = planned.duration_s(settings.worker_processes)
    if as_json:
        told = vars(planned) | {"duration_s": duration_s, "submitted": submitted}
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(_plan_text(planned, duration_s))
    if dry_run:
        click.echo("Nothing was changed. Leave out --dry-run to do it.")
    else:
        click.echo(f"{submitted} jobs wait behind all other scans; `photochrom status` shows how far they are.")


def _plan_text(planned: recolouring.Plan, duration_s: float | None) -> str:
    """A plan as a person reads it."""
    if not planned.scans:
        return f"No scan here has a derivative that version {planned.version} would change."
    lines = [
        f"{planned.scans} scans ({planned.size_bytes / 1e6:.0f} MB) get a derivative by {planned.version} as well."
    ]
    lines += [f"  now by {version}: {count}" for version, count in planned.by.most_common()]
    lines += [f"  in {folder}: {count}" for folder, count in planned.folders.most_common(10)]
    if duration_s is not None:
        lines.append(f"About {duration_s / 60:.1f} min, at {planned.each_s:.1f} s each as in the last jobs.")
    return "\n".join(lines)
