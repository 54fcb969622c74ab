"""No password is ever shown, wherever in an address it stands."""

import json
import socket
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from daemon.broker import check_broker
from daemon.cli import main
from worker.addresses import with_patience, without_password
from worker.db import open_database
from worker.errors import BrokerUnavailable, DatabaseUnusable
from worker.queue import celery_settings
from worker.settings import Settings


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush@host/x",
        "postgresql://me:hu/hush?hush@hush@host/x",
        "postgresql+psycopg://host/x?user=me&password=hush",
        "postgresql:///x?sslpassword=hush&host=/run/postgresql",
        "postgresql://host/x?Pass%77ord=hush",
        "mysql://host/x?passwd=hush#password=hush",
        "redis://:hush@host:6379/0",
        "redis://host:6379/0?password=hu@hush",
        "rediss://host/0?db=1&ssl_password=hush",
        "redis+socket:///run/valkey.sock?virtual_host=0&password=hush",
        "me:hush@host",
        "postgresql:me:hush@host",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    assert "hush" not in without_password(url) and "***" in without_password(url)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////srv/photo@lab:1/photochrom.db?timeout=3",
        "redis+socket:///run/valkey.sock?virtual_host=0",
        "postgresql+psycopg://me@host:5432/x?host=/run/postgresql&sslmode=require&passfile=/etc/pgpass",
        "localhost:6379",
        "nonsense",
        "",
    ],
)
def test_the_rest_is_shown_as_it_is(url: str) -> None:
    assert without_password(url) == url


def test_no_verb_shows_a_password(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOCHROM_DATABASE_URL", "postgresql:///x?host=/nowhere&password=hush")
    monkeypatch.setenv("PHOTOCHROM_BROKER_URL", "redis+socket:///nowhere?virtual_host=0&password=hush")
    for verb in ("config", "status", "health", "doctor"):
        asked = CliRunner().invoke(main, [verb])
        assert "hush" not in asked.output and "password=***" in asked.output, asked.output
    assert json.loads(CliRunner().invoke(main, ["config", "--json"]).output)["broker_url"].endswith("password=***")


@pytest.mark.parametrize("url", ["redis://:hush/x@host/0", "redis://:hu?sh@host/0", "redis://:hu[sh@host/0"])
def test_nor_a_piece_of_one_that_is_not_escaped(tmp_path: Path, url: str) -> None:
    with pytest.raises(BrokerUnavailable, match="percent-encoded") as caught:
        check_broker(Settings(state_dir=tmp_path, broker_url=url))
    assert "hu" not in "".join(traceback.format_exception(caught.value)).replace(url, "")
    with pytest.raises(BrokerUnavailable, match="percent-encoded") as caught:
        celery_settings(Settings(state_dir=tmp_path, broker_url=url))
    assert "hu" not in "".join(traceback.format_exception(caught.value)).replace(url, "")


def test_no_connection_to_postgresql_waits_for_ever() -> None:
    """A server that takes the connection and says nothing is given up; a URL's own patience stays."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DatabaseUnusable, match="timeout"):
            open_database(f"postgresql://me@{address}/scans?connect_timeout=2")
    known = dict(with_patience(sa.make_url("postgresql://me@host/scans?connect_timeout=2")).query)
    assert known["connect_timeout"] == "2" and int(str(known["tcp_user_timeout"])) <= 30_000
    assert int(str(with_patience(sa.make_url("postgresql://me@host/scans")).query["connect_timeout"])) <= 30
