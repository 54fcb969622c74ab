"""The list of the photographs behind the shipped weights: whole, found by content, its hold-out marked."""

import csv
import hashlib
import shutil
from pathlib import Path

import cv2
import pytest
from skimage import data

from model import base_set
from model.photos import find_photos
from model.retraining import base_photos

SHARED = Path(__file__).parents[2].parent / "shared" / "photos"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs of three sources, one of them gray."""
    for source, name, picture in (("cats", "chelsea", data.chelsea()), ("food", "coffee", data.coffee()),
                                  ("food", "camera", data.camera())):  # fmt: skip
        (tmp_path / source).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / source / f"{name}.png"), picture[..., ::-1] if picture.ndim == 3 else picture)
    (tmp_path / "food_attributions.csv").write_text("file,licence\nfood/coffee.png,CC0\n")
    return tmp_path


def test_the_list_that_ships_is_whole_and_small() -> None:
    listed = base_set.listed()
    with base_set.SOURCES.open(newline="") as file:
        sources = list(csv.DictReader(file))
    assert all(len(sha256) == 64 and photo.size_bytes > 0 and photo.licence for sha256, photo in listed.items())
    counts = {row["source"]: sum(photo.source == row["source"] for photo in listed.values()) for row in sources}
    assert counts == {row["source"]: int(row["photos"]) for row in sources}
    assert sum(counts.values()) == len(listed) == 20286
    assert {photo.source for photo in listed.values() if photo.held_out} == {"pacs_photo", "weather_sky"}
    assert base_set.LISTED.stat().st_size < 1 << 20


def test_a_list_is_made_from_a_folder_without_what_is_dull(photos: Path, tmp_path: Path) -> None:
    assert base_set.write(photos, tmp_path / "list.csv.xz") == 2
    rows = list(base_set.entries(photos))
    chelsea = (photos / "cats" / "chelsea.png").read_bytes()
    assert rows[0] == (hashlib.sha256(chelsea).hexdigest(), len(chelsea), "cats", "")
    assert rows[1][2:] == ("food", "CC0")


def test_a_photo_is_found_by_its_content(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "sources.csv"
    sources.write_text("source,use,licence\ncats,train,none stated\nfood,holdout,per photo\n")
    base_set.write(photos, tmp_path / "list.csv.xz")
    monkeypatch.setattr(base_set, "LISTED", tmp_path / "list.csv.xz")
    monkeypatch.setattr(base_set, "SOURCES", sources)
    base_set.listed.cache_clear(), base_set._sizes.cache_clear()
    try:
        elsewhere = tmp_path / "elsewhere" / "any name.jpg"
        elsewhere.parent.mkdir()
        shutil.copy(photos / "food" / "coffee.png", elsewhere)
        (found,) = find_photos([elsewhere.parent])
        known = base_set.find(found)
        assert known is not None and (known.source, known.licence, known.held_out) == ("food", "CC0", True)
        changed = bytearray(elsewhere.read_bytes())
        changed[-1] ^= 1
        elsewhere.write_bytes(changed)
        assert base_set.find(found) is None  # the same size, other bytes
        elsewhere.unlink()
        assert base_set.find(found) is None
    finally:
        base_set.listed.cache_clear(), base_set._sizes.cache_clear()


def test_a_draw_holds_a_share_of_every_source(tmp_path: Path) -> None:
    for source, count in (("many", 400), ("few", 16), ("one", 1)):
        (tmp_path / source).mkdir()
        for number in range(count):
            (tmp_path / source / f"{number}.jpg").touch()
    drawn = base_photos(tmp_path, seed=3)
    assert len(drawn) == len({photo.name for photo in drawn}) == 417
    first = [photo.source for photo in drawn[:60]]
    assert first.count("few") == pytest.approx(10, abs=2) and first.count("one") == 1
    assert drawn == base_photos(tmp_path, seed=3) != base_photos(tmp_path, seed=4)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the training photographs: ../shared/photos")
def test_the_files_that_were_learned_from_are_known() -> None:
    photos = find_photos([SHARED / "weather_sky"])[:20]
    known = [base_set.find(photo) for photo in photos]
    assert sum(entry is not None and entry.held_out for entry in known) >= 15
