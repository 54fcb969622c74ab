"""The embedded broker with a real server: one per directory, and what it knows survives its death."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from daemon import broker
from daemon.broker import EmbeddedBroker, check_broker
from worker.errors import BrokerUnavailable
from worker.mounts import Mount
from worker.settings import SOCKET_PATH_MAX_BYTES, Settings, broker_socket


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    with contextlib.suppress(BrokerUnavailable):
        check_broker(Settings(state_dir=tmp_path))
        EmbeddedBroker(tmp_path).stop()


def _client(embedded: EmbeddedBroker) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(embedded.socket))


def _pid(embedded: EmbeddedBroker) -> int:
    with contextlib.closing(_client(embedded)) as client:
        return int(client.info("server")["process_id"])


def test_only_we_can_reach_it_and_stopping_leaves_nothing(state_dir: Path) -> None:
    embedded = EmbeddedBroker(state_dir)
    embedded.start()
    pid = _pid(embedded)
    assert embedded.is_alive()
    assert embedded.directory.stat().st_mode & 0o777 == 0o700
    assert embedded.socket.stat().st_mode & 0o777 == 0o700
    with contextlib.closing(_client(embedded)) as client:
        assert client.config_get("port") == {"port": "0"}
        for name, value in broker.DURABILITY.items():
            assert client.config_get(name) == {name: value}
    check_broker(Settings(state_dir=state_dir))
    embedded.stop()
    assert not embedded.is_alive()
    assert not embedded.socket.exists()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(BrokerUnavailable, match="photochrom up"):
        check_broker(Settings(state_dir=state_dir))


def test_a_server_that_let_go_of_its_lock_but_still_dies_is_waited_for(state_dir: Path) -> None:
    embedded = EmbeddedBroker(state_dir)
    embedded.start()
    process = subprocess.Popen(["sleep", "0.3"])
    serving, embedded._process = embedded._process, process
    assert serving is not None
    serving.kill()
    serving.wait()
    assert embedded._wait_gone()
    assert process.returncode == 0
    assert not Path(f"/proc/{process.pid}").exists()


def test_an_orphan_is_adopted_not_doubled(state_dir: Path) -> None:
    orphan, second = EmbeddedBroker(state_dir), EmbeddedBroker(state_dir)
    orphan.start()
    second.start()
    assert second.adopted
    assert _pid(second) == _pid(orphan)
    second.stop()
    assert not orphan.is_alive()


def test_messages_survive_kill_9(state_dir: Path) -> None:
    embedded = EmbeddedBroker(state_dir)
    embedded.start()
    with contextlib.closing(_client(embedded)) as client:
        client.rpush("queue", *range(200))
    os.kill(_pid(embedded), signal.SIGKILL)
    assert embedded.bury() == "ended with status -9"
    assert not embedded.is_alive()
    embedded.start()
    assert not embedded.adopted
    with contextlib.closing(_client(embedded)) as client:
        assert client.llen("queue") == 200


def test_a_damaged_file_is_put_aside(state_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    embedded = EmbeddedBroker(state_dir)
    embedded.start()
    with contextlib.closing(_client(embedded)) as client:
        client.rpush("queue", *range(200))
    embedded.stop()
    for part in (embedded.directory / "appendonlydir").glob("*.incr.aof"):
        part.write_bytes(part.read_bytes()[:30] + b"#" * 30 + part.read_bytes()[60:])
    embedded.start()
    assert "put aside" in caplog.text
    assert list(embedded.directory.glob("appendonlydir.damaged-*"))
    with contextlib.closing(_client(embedded)) as client:
        assert client.llen("queue") == 0


def test_a_server_whose_socket_was_removed_is_replaced(state_dir: Path) -> None:
    embedded = EmbeddedBroker(state_dir)
    embedded.start()
    before = _pid(embedded)
    embedded.socket.unlink()
    assert not embedded.is_alive()
    embedded.bury()
    embedded.start()
    assert _pid(embedded) != before


def test_a_long_path_gets_a_short_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    state_dir = tmp_path / ("long" * 30)
    embedded = EmbeddedBroker(state_dir)
    embedded.start()
    try:
        assert len(os.fsencode(embedded.socket)) <= SOCKET_PATH_MAX_BYTES
        assert embedded.socket == broker_socket(state_dir)
        assert embedded.socket.parent.stat().st_mode & 0o777 == 0o700
        assert (embedded.directory / "appendonlydir").is_dir()
    finally:
        embedded.stop()
    assert not embedded.socket.parent.exists()


def test_somebody_elses_socket_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "broker").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BrokerUnavailable, match="is a link"):
        EmbeddedBroker(tmp_path / "state").start()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_network_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = Mount(point="/", source="nas:/export", fs_type="nfs4")
    monkeypatch.setattr(broker, "mount_of", lambda path: share)
    with pytest.raises(BrokerUnavailable, match="nfs4, nas:/export"):
        EmbeddedBroker(tmp_path).start()
    assert list(tmp_path.iterdir()) == []


def test_an_address_where_nobody_answers_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BrokerUnavailable) as caught:
        check_broker(Settings(state_dir=tmp_path, broker_url=f"redis://:secret@127.0.0.1:{port}/0"))
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "PHOTOCHROM_BROKER_URL" in str(caught.value)


@pytest.mark.parametrize("url", ["redis//x", "unix:///x", "redis://host:port/0", "localhost:6379", "amqp://x"])
def test_what_is_no_address_of_a_broker_is_said_so(tmp_path: Path, url: str) -> None:
    with pytest.raises(BrokerUnavailable, match="PHOTOCHROM_BROKER_URL"):
        check_broker(Settings(state_dir=tmp_path, broker_url=url))
