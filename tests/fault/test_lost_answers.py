"""A COMMIT that PostgreSQL carried out, and whose answer never came: the connection is cut for real, by a proxy."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from cells import Cell
from invariants import assert_invariants
from plant import Plant, running
from proxy import Proxy

from worker.db import open_database
from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def _behind(_postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plant, Proxy]]:
    """A plant that reaches its record through a proxy; the test itself asks the server."""
    admin = sa.create_engine(_postgresql_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE behind")
    admin.dispose()
    direct = sa.make_url(_postgresql_server).set(database="behind")
    folder = Path(tempfile.mkdtemp(prefix="photochrom-proxy-"))  # short: it is a socket's
    proxy = Proxy(folder, Path(str(direct.query["host"])))
    url = direct.update_query_dict({"host": str(folder)}).render_as_string(hide_password=False)
    database = open_database(direct.render_as_string(hide_password=False))
    try:
        with running(tmp_path_factory.mktemp("plant"), PHOTOCHROM_DATABASE_URL=url) as made:
            yield Plant(made.installation, made.up, database, made.faults), proxy
    finally:
        database.dispose()
        proxy.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def behind(_behind: tuple[Plant, Proxy]) -> tuple[Plant, Proxy]:
    """The same, with nothing left in it of a cell that failed."""
    _behind[0].calm()
    return _behind


#: what is committed → what its transaction says, and how often its two scans are claimed in the end
COMMITS = {
    "a scan is submitted": (r"INSERT INTO jobs \(", [1, 1]),
    "a message is noted as sent": (r"UPDATE jobs SET [^\0]*dispatched_at=\(clock_timestamp", [1, 1]),
    "a job is claimed": (r"UPDATE jobs SET [^\0]*claim_no=\(jobs\.claim_no \+", [1, 2]),
    "a derivative is about to be published": (r"UPDATE jobs SET [^\0]*output_sha256=[^\0]* WHERE", [1, 2]),
    "a job ends": (r"INSERT INTO job_events .*\bdone\b", [1, 1]),
}


@pytest.mark.parametrize("what", COMMITS)
def test_committed_but_the_connection_is_lost(behind: tuple[Plant, Proxy], cell: Cell, what: str) -> None:
    """Nothing twice, nothing lost: whoever asked finds out from the rows what became of it."""
    plant, proxy = behind
    statement, claims = COMMITS[what]
    proxy.cut_after(statement)
    originals = plant.drop(what, 2)
    assert proxy.cut.wait(60), "no such transaction was committed"
    ended = time.time()
    if what == "a scan is submitted":
        assert plant.jobs(what), "it was not committed"
    cell.recovered(f"the COMMIT is done, the connection lost before its answer: {what}", plant.settle(what, 2) - ended)
    assert sorted(job.claim_no for job in plant.jobs(what)) == claims
    assert {job.state for job in plant.jobs(what)} == {JobState.DONE}
    assert_invariants(plant, originals, what)
