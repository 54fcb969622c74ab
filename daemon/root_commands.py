"""`photochrom roots`: what a person decides about watched folders."""

import os
import sys
from collections.abc import Mapping

import click
import sqlalchemy as sa
from sqlalchemy.orm import Session

from worker import files
from worker.answers import real_path
from worker.errors import ExitCode
from worker.fixity import LET_GO, LET_GO_BOTH
from worker.record import record
from worker.settings import load
from worker.tables import FileState, Root, SourceFile, display


@click.group()
def roots() -> None:
    """Watched folders; `photochrom status` shows them."""


@roots.command(short_help="An offline folder is meant as it is now.")
@click.argument("name")
def accept(name: str) -> None:
    """Take NAME (a root's name or path) as it is now, though it is another folder than before.

    For a folder that `status` shows as offline because it is not the one of the record and does not hold its files.
    Recorded files that are not in it become `vanished`; their derivatives stay.
    """
    path = os.fsencode(os.path.abspath(name))
    with record(load()) as database, database.writing() as session:
        found = session.scalars(sa.select(Root).where(sa.or_(Root.name == name, Root.path == path))).first()
        accepted = found is not None and files.accept_root(session, found.name)
    if found is None or not accepted:
        click.echo(f"{name} is no folder that was refused as another one; see `photochrom status`.", err=True)
        sys.exit(ExitCode.FAILED)
    click.echo(f"{display(found.path)} is taken as it is now.")


@roots.command("let-go", short_help="Scans that are gone were taken away on purpose.")
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
@click.option("--derivative", is_flag=True, help="Their derivatives were taken away on purpose too.")
def let_go(paths: tuple[str, ...], derivative: bool) -> None:
    """Say that scans which are gone were taken away on purpose: `verify --all` misses them no longer.

    PATH is a scan, or a folder: every scan in it that is gone. What comes back is taken and watched over as before.
    """
    refused = 0
    with record(load()) as database:
        with database.reading() as session:
            roots = dict(session.execute(sa.select(Root.name, Root.path)).tuples().all())
        for path in paths:
            below = {name: it for name, root in roots.items() if (it := _below(root, os.fsencode(path))) is not None}
            with database.writing() as session:
                count = _let_go(session, below, LET_GO_BOTH if derivative else LET_GO)
            refused, shown = refused + (not count), display(os.fsencode(path))
            if count:
                click.echo(f"{shown}: {count} of the scans that are gone {'was' if count == 1 else 'were'} let go.")
            else:
                click.echo(f"{shown}: nothing there is recorded as gone; see `photochrom why`.", err=True)
    if refused:
        sys.exit(ExitCode.FAILED)


def _below(root: bytes, path: bytes) -> bytes | None:
    """A path below a root: as it is written, as a link in a root is not followed; else by what leads to both."""
    for base, full in ((os.path.abspath(root), os.path.abspath(path)), (real_path(root), real_path(path))):
        base = base.rstrip(b"/")
        if full == base or full.startswith(base + b"/"):
            return full[len(base) + 1 :]
    return None


def _let_go(session: Session, paths: Mapping[str, bytes], reason: str) -> int:
    count, file = 0, SourceFile
    said = sa.case((file.reason == LET_GO_BOTH, LET_GO_BOTH), else_=reason)  # it is not taken back
    for name, path in paths.items():
        below = sa.and_(file.path >= path + b"/", file.path < path + b"0") if path else sa.true()  # 0 comes after /
        gone = (file.root == name, file.state == FileState.VANISHED, sa.or_(file.path == path, below))
        done = session.execute(sa.update(file).where(*gone).values(reason=said))
        count += done.rowcount  # type: ignore[attr-defined]
    return count
