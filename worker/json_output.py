"""Answers for programs: JSON on stdout."""

import datetime as dt
import json
from collections.abc import Iterable

import click


def print_json(data: object) -> None:
    """One value."""
    click.echo(_text(data))


def print_json_rows(rows: Iterable[object]) -> None:
    """A list, each item as it comes: a million of them are never held together."""
    before = "["
    for row in rows:
        click.echo(f"{before}\n  " + _text(row).replace("\n", "\n  "), nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


def _text(data: object) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, default=_jsonable)


def _jsonable(value: object) -> object:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)
