import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.evaluate import categories_of, colourised, evaluate, gray_of, no_colour
from model.lpips import Lpips, LpipsError
from model.photos import PhotosError, find_photos
from model.registry import Version


def scene(seed: int) -> np.ndarray:
    """A smooth colour picture."""
    small = np.random.default_rng(seed).integers(40, 220, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (90, 70), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(["people_a.png", "people_b.png", "sky_c.png"]):
        assert cv2.imwrite(str(tmp_path / name), scene(number)[..., ::-1])
    return tmp_path


NONE = Version(
    name="none", directory=Path(), weights_sha256="0" * 64, serve_size_px=64, saturation=1.0, config={"weights": {}}
)


def test_gray_keeps_lightness():
    rgb = scene(1)
    gray, light = gray_of(rgb)
    assert gray.shape == light.shape == rgb.shape[:2]
    truth = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 0]
    assert np.abs(light - truth).max() < 0.6  # 8 bits, and what OpenCV rounds


def test_the_truth_scores_as_the_truth_and_gray_as_gray(folder):
    truths = [cv2.cvtColor(scene(n).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 1:] for n in range(3)]
    answers = iter(truths)
    report = evaluate(folder, NONE, draws=50, colour=lambda light: next(answers))
    assert report.overall.photos == 3
    assert report.overall.figures["R"] > 0.99
    assert report.overall.figures["psnr"] > 35
    assert report.overall.figures["de00"] < 1
    assert report.overall.figures["chroma_ratio"] == pytest.approx(1, abs=0.02)
    assert report.gray.figures["cf"] == 0
    assert report.gray.figures["chroma_ratio"] < 0.01
    assert {name: part.photos for name, part in report.categories.items()} == {"people": 2, "sky": 1}
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert json.loads(text)["overall"]["figures"]["R"] == report.overall.figures["R"]


def test_a_fixed_tint_shows_as_signed_differences(folder):
    report = evaluate(folder, NONE, draws=0, colour=lambda light: no_colour(light) + np.float32([0, 20]))
    assert report.overall.figures["d_b"] > report.gray.figures["d_b"] + 15
    assert report.overall.intervals == {}


def test_categories_come_from_manifest_folder_or_name(folder):
    photos = find_photos([folder])
    assert categories_of(folder, photos)["sky_c.png"] == "sky"
    (folder / "manifest.csv").write_text("file,category,source\nsky_c.png,landscape,x\n")
    assert categories_of(folder, photos)["sky_c.png"] == "landscape"
    (folder / "night").mkdir()
    (folder / "people_a.png").rename(folder / "night" / "a.png")
    assert categories_of(folder, find_photos([folder]))["night/a.png"] == "night"


def test_unreadable_photos_are_named_and_sheets_are_written(folder):
    (folder / "torn.jpg").write_bytes(b"\xff\xd8")
    report = evaluate(folder, NONE, draws=0, colour=no_colour, sheet=folder / "s.png", worst_sheet=folder / "w.png")
    assert set(report.skipped) == {"torn.jpg"}
    for name in ("s.png", "w.png"):
        sheet = cv2.imread(str(folder / name))
        assert sheet.shape[1] > 6 * 200 and sheet.shape[0] > 2 * 200


def test_a_folder_of_nothing_readable_is_refused(tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(PhotosError, match="None of the 1 photos"):
        evaluate(tmp_path, NONE, colour=no_colour)


def test_colourised_keeps_the_size():
    assert colourised(scene(0), lambda light: np.zeros((7, 5, 2), np.float32)).shape == (70, 90, 3)


def test_lpips_refuses_what_is_no_alexnet(tmp_path):
    with pytest.raises(LpipsError, match=r"alexnet\.ckpt"):
        Lpips(tmp_path / "absent.ckpt")
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"AlexNet": os.getcwd}))
    with pytest.raises(LpipsError, match="no need of"):
        Lpips(tmp_path / "evil.ckpt")


def test_lpips_sees_a_difference_and_none():
    path = os.environ.get("LPIPS_ALEXNET")
    if not path:
        pytest.skip("LPIPS_ALEXNET does not name LPIPS's alexnet.ckpt")
    judge = Lpips(Path(path))
    assert judge.distance(scene(0), scene(0)) == 0
    assert judge.distance(scene(0), scene(1)) > 0.05
