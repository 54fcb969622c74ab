"""Alembic's entry: the engine is handed in by `worker.db.migrate`, or made from the settings for `alembic` by hand."""

from alembic import context

from worker import learning_tables  # noqa: F401 - its tables belong to the metadata
from worker.db import open_database
from worker.settings import load
from worker.tables import Base

engine = context.config.attributes.get("engine") or open_database(load().database).engine

# All in one transaction, which has the database for itself before it reads the present revision: two hosts that start
# together migrate once, and a migration that fails leaves nothing behind.
with engine.connect().execution_options(photochrom_write=True) as connection, connection.begin():
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(1839)")  # any number, always the same
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    context.run_migrations()
