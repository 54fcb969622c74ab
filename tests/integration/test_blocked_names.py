"""A scan whose derivative or sidecar cannot get its name waits, and nothing is computed for it meanwhile."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from worker_made import Works

from worker.db import Database
from worker.names import derivative_names
from worker.tables import Job, JobState


@pytest.fixture
def works(database: Database, tmp_path: Path) -> Works:
    return Works(tmp_path / "works", database)


def again(works: Works, job_id: int) -> Job:
    with works.database.writing() as session:
        session.get_one(Job, job_id).not_before = None
    return works.run(job_id)


@pytest.mark.parametrize(
    "put", [Path.mkdir, os.mkfifo, lambda path: path.write_text("{}"), lambda path: path.symlink_to("x")]
)
def test_what_has_the_sidecars_name(works: Works, put: Callable[[Path], object]) -> None:
    there = works.output / "a__color.png.json"
    put(there)
    job_id = works.scan("a.png")
    told = threading.Thread(target=lambda: [again(works, job_id) for _ in range(3)], daemon=True)
    told.start()
    told.join(30)
    assert not told.is_alive(), "it waits for a pipe"
    row = works.row(job_id)
    assert (row.state, row.error_class, row.failures) == (JobState.QUEUED, "output_blocked", 0)
    assert there.name in row.reason
    assert (works.net.asked, row.output_path) == (0, None)
    assert [name for name in works.files() if name != there.name] == []
    there.rmdir() if there.is_dir() else there.unlink()
    assert again(works, job_id).state is JobState.DONE
    assert works.files() == ["a__color.png", "a__color.png.json"]


def test_other_files_have_all_names(works: Works) -> None:
    for name in derivative_names(b"a.png", b".png"):
        (works.output / os.fsdecode(name)).write_text("foreign")
    job_id = works.scan("a.png")
    assert again(works, job_id).error_class == again(works, job_id).error_class == "output_blocked"
    assert works.net.asked == 0


def test_a_twin_is_not_copied_for_nothing(works: Works) -> None:
    works.run(works.scan("a.png"))
    (works.output / "b__color.png.json").mkdir()
    job_id = works.scan("b.png")
    assert again(works, job_id).error_class == "output_blocked"
    assert works.net.asked == 1 and "b__color.png" not in works.files()
