"""A watched folder may be bound to a version of the generator, or to an alias, whatever serves elsewhere."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
from installation import Installation
from versions_made import make_version

from daemon.reconcile import Reconciler
from worker import files, pinned, versions
from worker.db import Database
from worker.errors import ExitCode, UnknownSetting
from worker.learning_tables import VersionState
from worker.settings import RootSettings, Settings
from worker.tables import Job


def taken(database: Database, folder: Path, model: str) -> str | None:
    """The version that a new scan's job is bound to from the beginning."""
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + model.encode())
    with database.writing() as session:
        files.watch_root(session, name=folder.name, path=bytes(folder), output=b"/out", mode="scan", fs_type="ext4",
                         identity={}, watcher="me", lease_s=60)  # fmt: skip
    reconciler = Reconciler(database, folder.name, bytes(folder), 0.01, 3, model=model)
    reconciler.full_scan(lambda: True)
    time.sleep(0.02)
    reconciler.take_settled()
    with database.reading() as session:
        return session.scalars(sa.select(Job).where(Job.root == folder.name)).one().model_version


def promoted(database: Database, name: str) -> None:
    with database.writing() as session:
        versions.record(session, name, directory="", weights_sha256="0" * 64, state=VersionState.CANDIDATE)
        versions.promote(session, name, shipped="shipped", actor="test", reason="")


def test_new_jobs_are_bound_to_the_folder_s_version(database: Database, tmp_path: Path) -> None:
    assert taken(database, tmp_path / "free", "") is None  # whoever claims it says which
    assert taken(database, tmp_path / "bound", "v2") == "v2"
    assert taken(database, tmp_path / "alias before", "champion") is None
    promoted(database, "v3")
    assert taken(database, tmp_path / "alias", "champion") == "v3"
    assert taken(database, tmp_path / "free then", "") is None


def test_an_unknown_version_is_refused_and_a_known_one_is_not(database: Database, tmp_path: Path) -> None:
    def settings(model: str) -> Settings:
        root = RootSettings(path=tmp_path / "in", output=tmp_path / "out", name="archive", model=model)
        return Settings(state_dir=tmp_path / "state", roots=(root,))

    with pytest.raises(UnknownSetting, match=r"archive.*'v9'.*photochrom models list"):
        pinned.refuse_unknown(settings("v9"), database)
    promoted(database, "v9")  # in the record: this host need not have its files
    (tmp_path / "state" / "models" / "v10").mkdir(parents=True)
    for model in ("", "champion", "v9", "v10"):
        pinned.refuse_unknown(settings(model), database)


@pytest.mark.timeout(300)
def test_two_folders_two_versions(tmp_path: Path) -> None:
    """By `photochrom up` itself: refused with a name that is none, then one folder bound, the other not."""
    where = Installation(tmp_path)
    for name in ("bound", "free"):
        (tmp_path / name).mkdir()
    (tmp_path / "photochrom.toml").write_text(
        '[[roots]]\nname = "bound"\npath = "bound"\noutput = "bound-out"\nmodel = "v2"\n'
        '[[roots]]\nname = "free"\npath = "free"\noutput = "free-out"\n'
    )
    picture = np.random.default_rng(1).integers(0, 256, (48, 64), np.uint8)
    for name in ("bound", "free"):
        cv2.imwrite(str(tmp_path / name / "a.png"), picture)  # the same bytes: each version works on them itself

    refused = where.run("up", "--drain")
    assert refused.returncode == ExitCode.BAD_SETTING, refused.stderr
    (line,) = refused.stderr.splitlines()
    assert "bound" in line and "'v2'" in line and "photochrom models list" in line
    assert not (where.state_dir / "broker").exists()

    make_version(where.state_dir / "models", "v2", tint=0.3)
    drained = where.run("up", "--drain", timeout_s=240)
    assert drained.returncode == ExitCode.OK, drained.stdout + drained.stderr
    made = {job["root"]: (job["state"], job["model_version"]) for job in where.json("jobs")}
    assert made["bound"][1] == "v2" != made["free"][1]
    assert all((tmp_path / f"{name}-out" / "a__color.png").is_file() for name in ("bound", "free"))
    told = {root["name"]: root["model"] for root in where.json("status")["roots"]}
    assert told == {"bound": "v2", "free": ""}
    assert "model v2" in where.run("status").stdout
    assert [root["model"] for root in where.json("config")["roots"]] == ["v2", ""]
