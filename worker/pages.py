"""Tables of any length, a page at a time."""

from collections.abc import Iterator
from typing import Any, Final

import click
import sqlalchemy as sa

from worker.db import Database

PAGE: Final = 1000
#: a row's number on the command line: one that no column holds is wrong usage, not an error of the database
ROW_ID: Final = click.IntRange(1, 2**31 - 1)


def rows_by_id(database: Database, query: sa.Select[*tuple[Any, ...]], column: Any) -> Iterator[sa.Row[Any]]:
    """The rows of a query in the order of an id, each page of them read in a transaction of its own.

    A million rows need little memory, and whoever reads the answer slowly holds up nobody.

    Args:
        database: where they are.
        query: without order and limit; its rows have the id.
        column: the id.
    """
    last = 0
    while True:
        with database.reading() as session:
            rows = session.execute(query.where(column > last).order_by(column).limit(PAGE)).all()
        yield from rows
        if len(rows) < PAGE:
            return
        last = rows[-1]._mapping[column]
