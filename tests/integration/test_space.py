"""A root pauses before its disk is full, and goes on by itself; no attempt is spent on it."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tifffile

from daemon import space
from daemon.dispatch import Dispatcher
from worker import deriving, outbox, queue, room
from worker.answers import NoAnswer, ask
from worker.db import Database
from worker.errors import OutputFull
from worker.settings import RootSettings, Settings
from worker.tables import FileState, Job, JobState, Root, RootState, SourceFile

MIB = 1 << 20


@pytest.fixture
def settings(tmp_path: Path, database: Database) -> Settings:
    """Two roots, one of them with two scans of 10 MiB that wait."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}-out").mkdir()
    roots = tuple(RootSettings(path=tmp_path / name, output=tmp_path / f"{name}-out", name=name) for name in ("a", "b"))
    stat = {"size_bytes": 10 * MIB, "mtime_ns": 1, "ctime_ns": 1, "inode": 1}
    with database.writing() as session:
        for root in roots:
            session.add(Root(name=root.name, path=b"x", output=b"y", mode="scan", fs_type="ext4", identity="{}",
                             files=0, state=RootState.ONLINE))  # fmt: skip
        for number, name in enumerate(("a", "a", "b")):
            file = SourceFile(root=name, directory=b"", path=b"%d" % number, display_path=str(number),
                              state=FileState.SUBMITTED, **stat)  # fmt: skip
            session.add(file)
            session.flush()
            size_bytes = 10 * MIB if name == "a" else 1
            session.add(Job(source_file_id=file.id, root=name, path=file.path, display_path=file.display_path,
                            priority=3, source_sha256=f"{number:064}", size_bytes=size_bytes))  # fmt: skip
    return Settings(roots=roots, state_dir=tmp_path / "state", min_free_mib=100)


def test_the_next_scans_must_fit(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"a-out": 181 * MIB, "b-out": 181 * MIB, "state": 13 * MIB}
    monkeypatch.setattr(space, "free_bytes", lambda folder: free[folder.name])

    def paused() -> set[str]:
        with database.reading() as session:
            wanted = space.wanted_bytes(session, settings)
        return set(space.shortages(settings, wanted))

    assert paused() == set()  # 100 MiB kept, 4 × 20 MiB wanted
    free["a-out"] = free["b-out"] = 179 * MIB
    assert paused() == {"a"}
    free["a-out"] = None  # type: ignore[assignment]
    assert paused() == set()
    free["state"] = 12 * MIB
    assert paused() == {"a", "b"}


def test_paused_and_offline_roots_get_no_messages(settings: Settings, database: Database) -> None:
    def sent(*paused: str) -> list[str]:
        with database.writing() as session:
            return [job.root for job in outbox.to_dispatch(session, in_flight=9, broker_empty=True, paused=paused)]

    assert sent() == ["a", "a", "b"]
    assert sent("a") == ["b"]
    with database.writing() as session:
        session.get_one(Root, "b").state = RootState.OFFLINE
    assert sent() == ["a", "a"]


def test_the_dispatcher_pauses_and_goes_on(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = {"a-out": 1, "b-out": 500 * MIB, "state": 500 * MIB}
    monkeypatch.setattr(space, "free_bytes", lambda folder: free[folder.name])
    dispatcher = Dispatcher(database, settings)
    for _ in range(2):
        dispatcher.make_room()
    assert list(dispatcher.paused) == ["a"]
    assert "0 MiB free" in dispatcher.paused["a"]
    free["a-out"] = 500 * MIB
    dispatcher.make_room()
    assert dispatcher.paused == {}
    assert [record.message for record in caplog.records] == ["root_paused", "root_goes_on"]
    with database.reading() as session:
        assert {job.state for job in session.query(Job)} == {JobState.QUEUED}
        assert {job.claim_no for job in session.query(Job)} == {0}


@pytest.mark.parametrize("silent", ["a", "a-out"])
def test_a_disk_that_does_not_answer_pauses_its_root_alone(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent: str
) -> None:
    back = threading.Event()
    patience_s = {tmp_path / silent: 0.05}
    monkeypatch.setattr(space, "ask", lambda folder, question: ask(folder, question, patience_s.get(folder, 60)))
    with pytest.raises(NoAnswer):
        ask(tmp_path / silent, back.wait, patience_s=0.05)
    dispatcher = Dispatcher(database, settings.model_copy(update={"min_free_mib": 0}))
    dispatcher.make_room()
    assert list(dispatcher.paused) == ["a"]
    assert f"Paused: {tmp_path / silent} does not answer (for " in dispatcher.paused["a"]
    patience_s.clear()
    back.set()
    dispatcher.make_room()
    assert dispatcher.paused == {}


def test_jobs_of_a_root_that_was_not_looked_at_yet_wait(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(queue, "waiting", lambda: 0)
    monkeypatch.setattr(queue, "send", lambda job_id, priority: sent.append(job_id))
    dispatcher = Dispatcher(database, settings.model_copy(update={"min_free_mib": 0}))
    dispatcher.unseen = {"a"}
    assert dispatcher.dispatch() == 1
    dispatcher.unseen.clear()
    assert dispatcher.dispatch() == 2
    with database.reading() as session:
        assert [session.get_one(Job, job_id).root for job_id in sent] == ["b", "a", "a"]


def test_a_file_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        room.refuse_without_room(file.fileno(), 1)
        with pytest.raises(OutputFull, match="are free"):
            room.refuse_without_room(file.fileno(), 1 << 60)
    assert room.free_bytes(tmp_path / "gone") is None


def test_a_reason_can_be_recorded_whatever_the_folder_is_called(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = Path(f"{tmp_path}/out\udcff")
    output.mkdir()
    monkeypatch.setattr(space, "free_bytes", lambda folder: 1)
    roots = (settings.roots[0].model_copy(update={"output": output}),)
    (reason,) = space.shortages(settings.model_copy(update={"roots": roots}), {"a": 1}).values()
    assert r"/out\xff has" in reason
    with database.writing() as session:
        session.get_one(Root, "a").reason = reason


def test_nobody_waits_for_more_room_than_the_process_may_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may claim any number of pages; waiting costs no strike and would never end."""
    monkeypatch.setattr(room.resource, "getrlimit", lambda which: (1 << 20, room.resource.RLIM_INFINITY))
    with (tmp_path / "file").open("wb") as file:
        room.refuse_without_room(file.fileno(), 1 << 60)


def test_room_is_wanted_for_all_pages_whatever_the_size_of_the_first(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray = np.random.default_rng(0).integers(30, 220, (300, 400), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as book:
        for page in (gray[:64, :64], gray, gray):
            book.write(page, photometric="minisblack", metadata=None)
    wanted: list[int] = []

    def refuse(_fd: int, wanted_bytes: int, _spared_bytes: int) -> None:
        wanted.append(wanted_bytes)
        raise OutputFull("no room")

    monkeypatch.setattr(room, "refuse_without_room", refuse)
    version: Any = SimpleNamespace(name="v", weights_sha256="0" * 64)
    colorizer: Any = SimpleNamespace(version=version)
    publication: Any = SimpleNamespace(fd=-1)
    with (tmp_path / "a.tif").open("rb") as scan, pytest.raises(OutputFull):
        deriving.derive(settings, colorizer, scan.fileno(), b"a.tif", "0" * 64, publication, policy=mock.MagicMock())
    assert wanted == [3 * (64 * 64 + 2 * 300 * 400)]
