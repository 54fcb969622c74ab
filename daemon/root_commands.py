"""`photochrom roots`: what a person decides about watched folders."""

import os
import sys

import click
import sqlalchemy as sa

from daemon.questions import record
from worker import files
from worker.errors import ExitCode
from worker.settings import load
from worker.tables import Root, display


@click.group()
def roots() -> None:
    """Watched folders; `photochrom status` shows them."""


@roots.command()
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
