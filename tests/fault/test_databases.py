"""Locked, restarted, cut-off and crowded databases, and two workers that want one job."""

import contextlib
import os
import pwd
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from plant import Plant, cut_off, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def no_strikes(plant: Plant, folder: str) -> None:
    assert {job.failures for job in plant.jobs(folder)} == {0}, "a strike was counted: the scan is not to blame"


def test_sqlite_locked_for_a_minute(plant: Plant, cell: Cell) -> None:
    plant.arm("inference", "stop")
    originals = plant.drop("locked", 4)
    plant.hit("inference")
    (child,) = plant.coloring()
    connection = sqlite3.connect(plant.installation.state_dir / "photochrom.db", isolation_level=None, timeout=30)
    connection.execute("BEGIN IMMEDIATE")
    os.kill(child, 18)  # SIGCONT: it will want to publish and to finish
    time.sleep(60)
    connection.execute("ROLLBACK")
    connection.close()
    ended = time.time()
    cell.recovered("SQLite locked by another program for 60 s, a job in hand", plant.settle("locked", 4) - ended)
    no_strikes(plant, "locked")
    assert_invariants(plant, originals, "locked")


@pytest.mark.parametrize("point", ["recorded"])
def test_committed_but_the_answer_is_lost(plant: Plant, cell: Cell, point: str) -> None:
    plant.arm(point, "raise ECONNRESET")
    originals = plant.drop("answer", 2)
    began = plant.hit(point)
    cell.recovered("the end of a job was committed, the answer lost", plant.settle("answer", 2) - began)
    assert_invariants(plant, originals, "answer")
    assert {job.claim_no for job in plant.jobs("answer")} == {1}


def test_two_workers_on_one_job(plant: Plant, cell: Cell) -> None:
    """Both get every message, five times."""
    environ = plant.installation.environ | {"PHOTOCHROM_WORKER": "rival"}
    log = plant.installation.state_dir / "logs" / "rival.log"
    with log.open("wb") as out:
        rival = subprocess.Popen(plant.installation.command("worker"), env=environ, stdout=out, stderr=out)
    try:
        wait_for(lambda: "worker_ready" in log.read_text(), 90, "the second worker is warm")
        began = time.time()
        originals = plant.drop("rivals", 8)
        plant.send_again([job.id for job in plant.wait_jobs("rivals", 8)], 5)
        ended = plant.settle("rivals", 8)
        assert_invariants(plant, originals, "rivals")
        assert {job.claim_no for job in plant.jobs("rivals")} == {1}
    finally:
        rival.terminate()
        rival.wait(90)  # 32 s were seen; its unit waits 90 s
    cell.recovered("two workers, every message five times", ended - began, "(all eight scans)")


@pytest.fixture(scope="module")
def _on_postgresql(_postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant whose record is in PostgreSQL."""
    admin = sa.create_engine(_postgresql_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE plant")
    admin.dispose()
    url = sa.make_url(_postgresql_server).set(database="plant").render_as_string(hide_password=False)
    with running(tmp_path_factory.mktemp("plant"), PHOTOCHROM_DATABASE_URL=url) as made:
        yield made


@pytest.fixture
def on_postgresql(_on_postgresql: Plant) -> Plant:
    """The same, with nothing left in it of a cell that failed."""
    _on_postgresql.calm()
    return _on_postgresql


def restart(server: str) -> None:
    """As by a crash: connections are cut, transactions rolled back, the log replayed."""
    home = Path(str(sa.make_url(server).query["host"]))
    found = [*Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), Path(shutil.which("pg_ctl") or "/usr/local/bin/pg_ctl")]
    owner = pwd.getpwuid(home.stat().st_uid)
    who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    log = home / "data" / "restarts.log"  # where the server's user may write
    command = [str(found[0]), "-D", str(home / "data"), "-m", "immediate", "-l", str(log), "-w", "restart"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, **who)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("point", ["inference", "intended", "published"])
def test_postgresql_restarted(on_postgresql: Plant, _postgresql_server: str, cell: Cell, point: str) -> None:
    plant, folder = on_postgresql, f"restart-{point}"
    plant.arm(point, "stop")
    originals = plant.drop(folder, 3)
    plant.hit(point)
    (child,) = plant.coloring()
    restart(_postgresql_server)
    os.kill(child, 18)  # SIGCONT
    ended = time.time()
    plant.database.dispose()
    cell.recovered(f"PostgreSQL crashed and restarted while a job is at: {point}", plant.settle(folder, 3) - ended)
    assert_invariants(plant, originals, folder)


def open_transactions(server: str) -> list[str]:
    """The last statements of transactions that have written, are not committed, and wait for their client."""
    engine = sa.create_engine(server)
    waiting = "datname = 'plant' AND state = 'idle in transaction' AND backend_xid IS NOT NULL"
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT query FROM pg_stat_activity WHERE {waiting}").scalars().all()
    engine.dispose()
    return list(found)


@pytest.mark.parametrize(("point", "part", "states"), [("recording", "worker", {"queued", "running"}),
                                                       ("submitting", "watch", set())])  # fmt: skip
def test_postgresql_restarted_in_a_transaction(
    on_postgresql: Plant, _postgresql_server: str, cell: Cell, point: str, part: str, states: set[str]
) -> None:
    """What the transaction wrote is gone with it: a job that was published is not ended, a scan is not submitted."""
    plant, folder = on_postgresql, f"open-{point}"
    plant.arm(point, "stop")
    originals = plant.drop(folder, 3)
    plant.hit(point)
    stopped = plant.child() if part == "worker" else plant.part(part)
    table = "jobs" if part == "worker" else "source_files"
    held = open_transactions(_postgresql_server)
    assert any(query.startswith(f"UPDATE {table} ") for query in held), f"no open transaction of ours: {held}"
    restart(_postgresql_server)
    plant.database.dispose()
    assert {job.state for job in plant.jobs(folder)} == states, "the transaction was not rolled back"
    os.kill(stopped, signal.SIGCONT)
    ended = time.time()
    fault = f"PostgreSQL crashed and restarted in the middle of a transaction of ours: {point}"
    cell.recovered(fault, plant.settle(folder, 3) - ended)
    no_strikes(plant, folder)
    assert_invariants(plant, originals, folder)


def test_postgresql_connections_cut(on_postgresql: Plant, cell: Cell) -> None:
    plant = on_postgresql
    plant.arm("published", "stop")
    originals = plant.drop("cut", 3)
    plant.hit("published")
    (child,) = plant.coloring()
    with plant.database.engine.connect() as connection:
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'plant'"
        )
        connection.exec_driver_sql(cut)
    os.kill(child, 18)  # SIGCONT
    ended = time.time()
    cell.recovered("all PostgreSQL connections cut between publishing and recording", plant.settle("cut", 3) - ended)
    assert_invariants(plant, originals, "cut")


class Slots:
    """All connections that a PostgreSQL server has for anybody, held from outside."""

    def __init__(self, server: str) -> None:
        """`server`: its URL, of a superuser, so that the slots kept for one are taken too."""
        url = sa.make_url(server)
        self._told = {"host": str(url.query["host"]), "user": str(url.username), "dbname": str(url.database)}
        self._held = [psycopg.connect(**self._told, autocommit=True)]

    def take(self) -> int:
        """Cut off whoever works in the database `plant`, and take what is free; how many were cut off."""
        query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'plant'"
        row = self._held[0].execute(query).fetchone()
        with contextlib.suppress(psycopg.OperationalError):  # sorry, too many clients already
            while True:
                self._held.append(psycopg.connect(**self._told, autocommit=True))
        return int(row[0]) if row else 0

    def hold(self, seconds: float) -> None:
        """Until nobody else has had one for so long."""
        deadline, since = time.monotonic() + 120, time.monotonic()
        while time.monotonic() - since < seconds:
            since = time.monotonic() if self.take() else since
            assert time.monotonic() < deadline, "others still get connections"
            time.sleep(0.05)

    def close(self) -> None:
        for connection in self._held:
            connection.close()


def memory_limit_bytes(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_DATA)[0]


@pytest.mark.parametrize("fate", ["goes on", "is killed", "is killed, worker and watcher too"])
def test_postgresql_slots_taken(on_postgresql: Plant, _postgresql_server: str, cell: Cell, fate: str) -> None:
    """Nobody gets a connection for 20 s: a job ends that cannot be recorded, or its process does and a new one starts.

    Scans come meanwhile, too.
    """
    plant, folder = on_postgresql, f"slots-{len(fate)}"
    point, what = ("published", signal.SIGCONT) if fate == "goes on" else ("inference", signal.SIGKILL)
    plant.arm(point, "stop")
    originals = plant.drop(folder, 3)
    plant.wait_jobs(folder, 3)
    plant.hit(point)
    (child,) = plant.coloring()
    plant.database.dispose()
    slots = Slots(_postgresql_server)
    try:
        slots.hold(1)
        os.kill(child, what)
        for part in ("worker", "watch") if "too" in fate else ():
            cut_off(plant.part(part))
        more = plant.drop(f"{folder}-meanwhile", 2)
        slots.hold(20)
    finally:
        slots.close()
    ended = time.time()
    last = max(plant.settle(folder, 3), plant.settle(f"{folder}-meanwhile", 2))
    assert_invariants(plant, originals, folder)
    assert_invariants(plant, more, f"{folder}-meanwhile")
    assert memory_limit_bytes(plant.child()) != resource.RLIM_INFINITY, "a colouring process works without its limits"
    cell.recovered(f"all PostgreSQL connections taken for 20 s, the colouring process {fate}", last - ended)
