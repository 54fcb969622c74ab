"""A scan whose new content has another kind has one derivative still: the new one, under another name."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from worker_made import Works

from worker.db import Database
from worker.tables import JobState


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
