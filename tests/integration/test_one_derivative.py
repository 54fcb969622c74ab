"""A scan whose derivative gets another name has one still: the new one. Nobody else's is taken away."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from worker_made import Works

from worker import jobs
from worker.db import Database
from worker.tables import Job, JobState


@pytest.fixture
def works(database: Database, tmp_path: Path) -> Works:
    return Works(tmp_path / "works", database)


def _becomes_a_tiff(works: Works, name: str) -> int:
    ramp = np.tile(np.arange(200, dtype=np.uint8), (160, 1))
    tifffile.imwrite(works.inbox / name, ramp)
    return works.record(name)


def test_new_content_of_another_kind(works: Works) -> None:
    works.run(works.scan("a.tif"))
    assert works.files() == ["a__color.png", "a__color.png.json"]
    assert works.run(_becomes_a_tiff(works, "a.tif")).state is JobState.DONE
    assert works.files() == ["a__color.tif", "a__color.tif.json"]


def test_what_somebody_has_changed_stays(works: Works) -> None:
    works.run(works.scan("a.tif"))
    (works.output / "a__color.png").write_bytes(b"retouched")
    works.run(_becomes_a_tiff(works, "a.tif"))
    assert works.files() == ["a__color.png", "a__color.png.json", "a__color.tif", "a__color.tif.json"]


def test_what_is_another_scans_by_now_stays(works: Works) -> None:
    """The same bytes lie under the name, and it is another scan's that was made meanwhile."""
    works.run(works.scan("a.tif"))
    new = _becomes_a_tiff(works, "a.tif")
    for left in works.output.iterdir():
        left.unlink()
    other = works.run(works.scan("a.png"))
    assert other.output_path == b"a__color.png"
    works.run(new)
    assert works.files() == ["a__color.png", "a__color.png.json", "a__color.tif", "a__color.tif.json"]


def test_what_cannot_be_taken_away_holds_up_nothing(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is immutable, say, or of another user in a sticky folder."""
    works.run(works.scan("a.tif"))
    job_id, unlink = _becomes_a_tiff(works, "a.tif"), os.unlink

    def locked(name: bytes, **at: int) -> None:
        if name == b"a__color.png":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(name, **at)

    monkeypatch.setattr(os, "unlink", locked)
    assert works.run(job_id).state is JobState.DONE
    assert {"a__color.png", "a__color.tif"} <= set(works.files())


def test_one_that_is_made_again_after_a_setting_changed(works: Works) -> None:
    job_id = works.scan("a.png")
    works.run(job_id)
    with works.database.writing() as session:
        jobs.do_again(session, session.get_one(Job, job_id))
    chosen = works.bench.settings.model_copy(update={"output_format": "tiff"})
    works.bench = dataclasses.replace(works.bench, settings=chosen)
    works.run(job_id)
    assert works.files() == ["a__color.tif", "a__color.tif.json"]


def test_names_that_differ_in_case_on_a_disk_where_they_do_not(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the same bytes keeps its own derivative when the elder's scan gets new content."""
    _without_case(monkeypatch)
    elder = works.run(works.scan("A.png"))
    shutil.copyfile(works.inbox / "A.png", works.inbox / "a.png")
    copy = works.run(works.record("a.png"))
    assert (elder.state, copy.state) == (JobState.DONE, JobState.DUPLICATE)
    works.run(_becomes_a_tiff(works, "A.png"))
    assert _folded(copy.output_path or b"").decode() in works.files()


def _folded(path: Any) -> Any:
    """A derivative's name as such a disk knows it."""
    path = os.fspath(path)
    cut = path.rfind(b"/" if isinstance(path, bytes) else "/") + 1
    return path[:cut] + path[cut:].lower() if (b"__color" if isinstance(path, bytes) else "__color") in path else path


def _without_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("open", "unlink", "stat", "lstat"):
        one = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, *a, one=one, **k: one(
            path if isinstance(path, int) else _folded(path), *a, **k))  # fmt: skip
    for name in ("rename", "link"):
        two = getattr(os, name)
        monkeypatch.setattr(os, name, lambda old, new, *a, two=two, **k: two(_folded(old), _folded(new), *a, **k))
