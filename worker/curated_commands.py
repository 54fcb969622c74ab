"""The verbs about curated photos: what is there, what was refused and why, and a person's last word."""

import contextlib
import json
from collections.abc import Iterator

import click
import sqlalchemy as sa

from worker import curated
from worker.db import Database, has_tables, opened
from worker.errors import DatabaseUnusable
from worker.json_output import print_json_rows
from worker.learning_tables import CuratedPhoto, CuratedState
from worker.pages import ROW_ID, rows_by_id
from worker.settings import load
from worker.versions import operator

COLUMNS = (
    "id", "state", "reason", "slice", "width_px", "height_px", "colourfulness", "licence", "origin", "use", "first_run",
    "duplicate_of", "judged_by", "sha256", "perceptual_hash", "size_bytes",
)  # fmt: skip


@contextlib.contextmanager
def _record() -> Iterator[Database]:
    settings = load()
    if not has_tables(settings.database):
        raise DatabaseUnusable("There is no database here yet. Start `photochrom up --curated DIR` first.")
    with opened(settings.database) as database:
        yield database


def _as_dict(photo: CuratedPhoto) -> dict[str, object]:
    values = {name: getattr(photo, name) for name in COLUMNS}
    judged = photo.judged_at.isoformat(timespec="seconds") if photo.judged_at else None
    return {"path": photo.display_path} | values | {"judged_at": judged}


@click.group("curated")
def curated_() -> None:
    """Colour photos to learn from: list, show, accept, reject, stats."""


@curated_.command("list")
@click.option("--state", type=click.Choice([state.value for state in CuratedState]), help="Only photos in this state.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(state: str | None, as_json: bool) -> None:
    """All curated photos, with their state and the reason for it."""
    query = sa.select(CuratedPhoto, CuratedPhoto.id)
    if state:
        query = query.where(CuratedPhoto.state == state)
    with _record() as database:
        photos = (row.CuratedPhoto for row in rows_by_id(database, query, CuratedPhoto.id))
        if as_json:
            print_json_rows(_as_dict(photo) for photo in photos)
            return
        for photo in photos:
            click.echo(f"{photo.id:>6}  {photo.state:<9} {photo.slice:<14} {photo.display_path}  {photo.reason}")


@curated_.command()
@click.argument("photo_id", metavar="ID", type=ROW_ID)
def show(photo_id: int) -> None:
    """Everything about the photo ID, as JSON."""
    with _record() as database, database.reading() as session:
        photo = session.get(CuratedPhoto, photo_id)
        if photo is None:
            raise click.BadParameter(f"there is no curated photo {photo_id}; `photochrom curated list` shows them.")
        click.echo(json.dumps(_as_dict(photo), indent=2))


@curated_.command()
@click.argument("ids", metavar="ID…", type=ROW_ID, nargs=-1, required=True)
def accept(ids: tuple[int, ...]) -> None:
    """Learn from these photos, whatever their check said; never from a neighbour of an evaluation picture."""
    _overrule(ids, CuratedState.ACCEPTED, "accepted by hand")


@curated_.command()
@click.argument("ids", metavar="ID…", type=ROW_ID, nargs=-1, required=True)
@click.option("--reason", default="rejected by hand", show_default=True, help="Why; kept in the record.")
def reject(ids: tuple[int, ...], reason: str) -> None:
    """Learn from these photos no more."""
    _overrule(ids, CuratedState.REJECTED, reason)


def _overrule(ids: tuple[int, ...], state: CuratedState, reason: str) -> None:
    with _record() as database:
        for photo_id in ids:
            with database.writing() as session:
                photo = curated.overrule(session, photo_id, state, reason, operator())
            click.echo(f"Photo {photo_id} ({photo.display_path}) is {state}.")


@curated_.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stats(as_json: bool) -> None:
    """How many photos there are, by state, slice and reason, and how many are new since the last training run."""
    with _record() as database, database.reading() as session:
        slices = session.execute(
            sa.select(CuratedPhoto.slice, sa.func.count())
            .where(CuratedPhoto.state == CuratedState.ACCEPTED)
            .group_by(CuratedPhoto.slice)
            .order_by(CuratedPhoto.slice)
        )
        told = {
            "states": curated.counts(session),
            "new": curated.new_photos(session),
            "slices": {name: count for name, count in slices},
            "rejected": dict(curated.rejections(session)),
        }
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for title, counts in told.items():
        rows = counts.items() if isinstance(counts, dict) else [("since the last training run", counts)]
        click.echo(f"{title}: " + (", ".join(f"{count} {name}" for name, count in rows) or "none"))
