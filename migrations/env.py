"""Alembic's entry: the engine is handed in by `worker.db.migrate`, or made from the settings for `alembic` by hand."""

from alembic import context

from worker.db import open_database
from worker.settings import load
from worker.tables import Base

engine = context.config.attributes.get("engine") or open_database(load().database).engine

with engine.connect().execution_options(photochrom_write=True) as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
