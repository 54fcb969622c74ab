"""The database: opening, short transactions, its clock, its migrations.

SQLite (WAL) by default, PostgreSQL by URL. No transaction is ever open while pixels or files are worked on.
"""

import contextlib
import datetime as dt
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from worker.addresses import with_patience, without_password
from worker.database_errors import advice_on, first_line
from worker.errors import DatabaseNewer, DatabaseUnusable
from worker.mounts import mount_of

BUSY_TIMEOUT_S: Final = 30
STATE_DIR_MODE: Final = 0o700  # whoever may read the database's files can hold their locks, and nothing is written
MIGRATIONS: Final = Path(__file__).resolve().parent.parent / "migrations"


class UtcTime(sa.types.TypeDecorator[dt.datetime]):
    """An aware time in UTC; SQLite, which knows no zones, keeps it as naive UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        """Refuse naive times: they mean something else on every host."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone: {value}")
        value = value.astimezone(dt.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        """Always aware."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class after(FunctionElement[dt.datetime]):
    """The database's own clock plus `seconds`: leases must not depend on the clocks of the hosts."""

    type = UtcTime()
    inherit_cache = True  # the seconds are a bound value: one compiled statement serves them all

    def __init__(self, seconds: float = 0) -> None:
        super().__init__(sa.literal(f"{seconds:+.3f} seconds", sa.Text()))


@compiles(after, "sqlite")
def _after_sqlite(element: after, compiler: Any, **options: Any) -> str:
    # three digits of a second from SQLite, six as SQLAlchemy writes them: texts that compare as times do
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {compiler.process(element.clauses, **options)}) || '000')"


@compiles(after, "postgresql")
def _after_postgresql(element: after, compiler: Any, **options: Any) -> str:
    return f"(clock_timestamp() + CAST({compiler.process(element.clauses, **options)} AS interval))"


class Database:
    """An engine with two kinds of short transactions.

    Attributes:
        engine: the SQLAlchemy engine.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._write_engine = engine.execution_options(photochrom_write=True)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A snapshot; nothing is written."""
        with Session(self.engine) as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """Commit at the end, roll back on any error. On SQLite the write lock is taken at the start."""
        with Session(self._write_engine, expire_on_commit=False) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Open the database at a SQLAlchemy URL; creates an empty SQLite file where there is none.

    Raises:
        DatabaseUnusable: the URL is malformed, the server does not answer, or SQLite lies on a network file system.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in {"postgresql", "postgresql+psycopg"}:
            parsed = with_patience(parsed.set(drivername="postgresql+psycopg"))
        sqlite = parsed.get_backend_name() == "sqlite"
        engine = _sqlite(parsed) if sqlite else sa.create_engine(parsed, pool_pre_ping=True)
        with engine.connect():
            pass
    except (SQLAlchemyError, OSError, ImportError) as error:
        raise DatabaseUnusable(
            f"The database at {without_password(url)} cannot be opened: {first_line(error)}. "
            f"{advice_on(error) or 'Correct database_url.'}"
        ) from error
    return Database(engine)


def _sqlite(url: sa.URL) -> sa.Engine:
    path = Path(url.database or "")
    if url.database and url.database != ":memory:":
        path.parent.mkdir(mode=STATE_DIR_MODE, parents=True, exist_ok=True)
        mount = mount_of(path.parent)
        if mount.is_network:
            raise DatabaseUnusable(
                f"{path} lies on a network file system ({mount.fs_type}), where SQLite's locks do not hold. "
                "Put state_dir on a local disk, or set database_url to a PostgreSQL server."
            )
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        _use_wal(cursor)
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        immediate = connection.get_execution_options().get("photochrom_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Switch to WAL; in a new file SQLite turns others away at once instead of letting them wait for the switch."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)


def migrate(url: str) -> None:
    """Bring the database to this version's schema; does nothing when it is there already.

    Raises:
        DatabaseNewer: its schema is newer than this program; nothing was changed.
        DatabaseUnusable: it cannot be opened or migrated.
    """
    from alembic import command  # not needed by workers' claims
    from alembic.util.exc import CommandError

    database = open_database(url)
    try:
        _is_current(database)  # raises where it is newer
        command.upgrade(alembic_config(database), "head")
    except (SQLAlchemyError, CommandError) as error:
        raise DatabaseUnusable(
            f"The database at {without_password(url)} could not be migrated: {first_line(error)}. "
            f"{advice_on(error) or 'See the log, then start again.'} Nothing is lost."
        ) from error
    finally:
        database.dispose()


def _is_current(database: Database) -> bool:
    """Whether the schema is this program's; False for an older one and for none, DatabaseNewer for a newer one."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise DatabaseNewer(
            f"The database has schema revision {current}, made by a newer Photochrom. "
            "Start that version, or point database_url at another database; nothing was changed."
        )
    return current == scripts.get_current_head()


def alembic_config(database: Database) -> Any:
    """Alembic's configuration for this database, without an ini file."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = database.engine
    return config


def refuse_unmigrated(database: Database) -> None:
    """Raise DatabaseUnusable when the schema is missing or older, DatabaseNewer when it is a newer program's."""
    if not _is_current(database):
        raise DatabaseUnusable(
            "The database has no tables yet, or those of an older version. "
            "Run `photochrom up` or `photochrom migrate` first."
        )


@contextlib.contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database for as long as the block runs; raises as `open_database` and `refuse_unmigrated`."""
    database = open_database(url)
    try:
        refuse_unmigrated(database)
        yield database
    finally:
        database.dispose()


@contextlib.contextmanager
def made(url: str) -> Iterator[Database]:
    """The same, made if there is none: whoever promotes before the first `up` is to find it so afterwards."""
    if not has_tables(url):
        migrate(url)
    with opened(url) as database:
        yield database


class SchemaGuard:
    """Sees in time that another release has migrated the database under a running program.

    An older program cannot know what a newer schema means: it refuses, as it would at its start.
    """

    def __init__(self, database: Database) -> None:
        """The schema has been looked at: `refuse_unmigrated` did not raise."""
        self._database = database
        self._revision = self._now()

    def _now(self) -> str | None:
        with self._database.engine.connect() as connection:
            found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return found

    def refuse_another(self) -> None:
        """One small query while nothing has changed.

        Raises:
            DatabaseNewer: another release has migrated it.
            DatabaseUnusable: it was brought back to an older schema.
        """
        if self._now() != self._revision:
            refuse_unmigrated(self._database)


def has_tables(url: str) -> bool:
    """Is there a database of ours at this URL? Asks only: a SQLite file that is not there is not made.

    Raises:
        DatabaseUnusable: a server does not answer.
    """
    if missing_file(url) is not None:
        return False
    database = open_database(url)
    try:
        return sa.inspect(database.engine).has_table("model_aliases")
    finally:
        database.dispose()


def missing_file(url: str) -> Path | None:
    """The SQLite file that this URL names, if it is not there (opening it would make it).

    Raises:
        DatabaseUnusable: the URL is malformed.
    """
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError as error:
        raise DatabaseUnusable(
            f"database_url is no SQLAlchemy URL: {first_line(error)}. Correct database_url."
        ) from error
    if parsed.get_backend_name() != "sqlite" or Path(parsed.database or "").is_file():
        return None
    return Path(parsed.database or "")
