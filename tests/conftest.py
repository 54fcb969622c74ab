"""What every test has: an environment without our variables, an empty current folder, and databases at will."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from worker.db import Database, migrate, open_database

POSTGRESQL_BINARIES = (Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the person who runs the tests, and no file in their current folder, decides a test."""
    for name in list(os.environ):
        if name.upper().startswith("PHOTOCHROM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory that settings find by the environment."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("PHOTOCHROM_STATE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def _migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "photochrom.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def database(_migrated_file: Path, tmp_path: Path) -> Iterator[Database]:
    """A migrated SQLite database of this test's own: a copy of one that was migrated once."""
    copy = tmp_path / "photochrom.db"
    shutil.copy(_migrated_file, copy)
    opened = open_database(f"sqlite:///{copy}")
    yield opened
    opened.dispose()


@pytest.fixture
def state_database(_migrated_file: Path, state_dir: Path) -> Iterator[Database]:
    """A migrated SQLite database where the verbs look for it."""
    shutil.copy(_migrated_file, state_dir / "photochrom.db")
    opened = open_database(f"sqlite:///{state_dir / 'photochrom.db'}")
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def _postgresql_server() -> Iterator[str]:
    """A real server on a unix socket, of an unprivileged user when root runs the tests."""
    binaries = next((folder for folder in POSTGRESQL_BINARIES if (folder / "initdb").exists()), None)
    found = shutil.which("initdb")
    folder = binaries or (Path(found).parent if found else None)
    if folder is None or not _server_program(folder).exists():
        pytest.skip("no PostgreSQL server is installed here (initdb, postgres)")
    # a short path of its own: a unix socket's may have 107 bytes
    home = Path(tempfile.mkdtemp(prefix="photochrom-pg-"))
    user = _unprivileged()
    if user is not None:
        os.chown(home, user.pw_uid, user.pw_gid)
    who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user is not None else {}

    environ = {**os.environ, "LC_ALL": "C", "HOME": str(home)}
    data, url = str(home / "data"), f"postgresql+psycopg://photochrom@/postgres?host={home}"
    create = [str(folder / "initdb"), "-D", data, "-U", "photochrom", "-A", "trust", "-E", "UTF8", "--no-sync"]
    # ended with the tests, also when they are killed
    leash = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
    serve = [*leash, str(_server_program(folder)), "-D", data, "-k", str(home), "-c", "listen_addresses=", "-F"]
    try:
        done = subprocess.run(create, cwd=home, env=environ, capture_output=True, text=True, **who)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(serve, cwd=home, env=environ, stdout=log, stderr=log, **who)  # type: ignore[call-overload]
        try:
            _wait_until_it_answers(url, server, home / "log")
            yield url
        finally:
            with contextlib.suppress(OSError):  # at once: nothing in it is worth keeping; a test may have restarted it
                os.kill(int((home / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            server.wait(30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _server_program(folder: Path) -> Path:
    """The server beside `initdb`, which may be a link to where both lie."""
    return (folder / "initdb").resolve().with_name("postgres")


def _wait_until_it_answers(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    engine = sa.create_engine(url)
    deadline_s = time.monotonic() + 60
    while True:
        try:
            engine.connect().close()
            break
        except sa.exc.OperationalError:
            alive = server.poll() is None and time.monotonic() < deadline_s
            assert alive, f"PostgreSQL does not start: {log.read_text()}"
            time.sleep(0.05)
    engine.dispose()


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom to be instead of root, which PostgreSQL refuses to be; None when we are not root."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("run by root, and there is no user postgres or nobody to be instead")


@pytest.fixture
def postgresql_url(_postgresql_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test's own."""
    name = f"test_{os.urandom(6).hex()}"
    admin = sa.create_engine(_postgresql_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield sa.make_url(_postgresql_server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'photochrom.db'}"
    found: str = request.getfixturevalue("postgresql_url")
    return found


@pytest.fixture
def record(url: str) -> Iterator[Database]:
    """A migrated database of either kind."""
    migrate(url)
    opened = open_database(url)
    yield opened
    opened.dispose()
