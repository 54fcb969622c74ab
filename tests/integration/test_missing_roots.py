"""A watched folder that is not there at the start: offline with its reason, and taken when it appears."""

import os
import threading
from pathlib import Path

import pytest

from daemon import roots, watch
from daemon.watch import Watcher
from worker import files
from worker.answers import ask
from worker.db import Database
from worker.mounts import Mount
from worker.settings import RootSettings, Settings
from worker.tables import Root, RootState


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "there").mkdir()
    made = [
        RootSettings(path=tmp_path / name, output=tmp_path / f"out {name}", name=name, batch="manifest")
        for name in ("there", "away")
    ]
    return Settings(state_dir=tmp_path / "state", roots=tuple(made))


@pytest.fixture
def watcher(settings: Settings, database: Database) -> Watcher:
    return Watcher(database, settings)


def row(watcher: Watcher, name: str) -> Root:
    with watcher.database.reading() as session:
        root = session.get_one(Root, name)
        session.expunge(root)
        return root


def test_a_missing_root_is_shown_and_taken_when_it_appears(watcher: Watcher, tmp_path: Path) -> None:
    watcher.hold()
    assert row(watcher, "there").state is RootState.ONLINE
    missing = row(watcher, "away")
    assert missing.state is RootState.OFFLINE and missing.reason.startswith("The folder is not there (ENOENT: ")
    assert missing.path == os.fsencode(tmp_path / "away")
    (tmp_path / "away").mkdir()
    watcher.hold()
    found = row(watcher, "away")
    assert (found.state, found.reason) == (RootState.ONLINE, "")
    assert (tmp_path / "out away").is_dir()


def test_a_root_that_appears_is_watched_as_what_it_lies_on_then(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.hold()
    (tmp_path / "away").mkdir()
    monkeypatch.setattr(watch, "mount_of", lambda path: Mount(point=str(path), source="nas:/scans", fs_type="nfs4"))
    watcher.hold()
    found, watched = row(watcher, "away"), watcher.watched[1]
    assert found.mode == watched.mode == "scan"
    assert watched.gate is not None
    assert watched.reconciler.tracker.settle_s == watched.gate.settle_s == watcher.settings.settle_network_s


def test_a_root_that_appears_without_its_output_stays_offline(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "out away").write_text("")
    (tmp_path / "away").mkdir()
    watcher.hold()
    assert "is a file" in row(watcher, "away").reason
    (tmp_path / "out away").unlink()
    watcher.hold()
    assert row(watcher, "away").state is RootState.ONLINE


def test_a_watcher_that_does_not_see_a_root_leaves_it_to_one_that_does(watcher: Watcher, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    watcher.hold()
    (tmp_path / "away").rename(tmp_path / "elsewhere")
    Watcher(watcher.database, watcher.settings).hold()  # on a host where it is not mounted
    assert row(watcher, "away").state is RootState.ONLINE
    with watcher.database.writing() as session:
        files.release_roots(session, watcher.name)
    Watcher(watcher.database, watcher.settings).hold()
    assert row(watcher, "away").state is RootState.OFFLINE


def test_a_root_that_does_not_answer_is_offline_until_it_does(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, real = threading.Event(), roots.identity

    def hung(path: Path) -> roots.RootIdentity:
        if path == tmp_path / "away":
            back.wait()
        return real(path)

    (tmp_path / "away").mkdir()
    watcher.hold()
    away = watcher.watched[1]
    assert away.online
    away.hints.gap.clear()
    patience_s = {tmp_path / "away": 0.05}
    monkeypatch.setattr(watch, "ask", lambda folder, question, _: ask(folder, question, patience_s.get(folder, 60)))
    monkeypatch.setattr(roots, "identity", hung)
    watcher.hold()
    assert row(watcher, "there").state is RootState.ONLINE
    silent = row(watcher, "away")
    assert silent.state is RootState.OFFLINE and not away.online
    assert silent.reason.startswith("The folder does not answer (for 0 s): its server, its disk or the network")
    back.set()
    patience_s.clear()
    watcher.hold()
    assert row(watcher, "away").state is RootState.ONLINE
    assert away.online and away.hints.gap.is_set(), "a full look follows"
    monkeypatch.undo()
    watcher.close()


def test_no_message_goes_out_before_its_root_was_looked_at(watcher: Watcher) -> None:
    assert watcher.dispatcher.unseen == {"there", "away"}
    watcher.hold()
    assert watcher.dispatcher.unseen == set()
