"""What is fit to be learned from, and what is the same picture again."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from model.perceptual import NEAR_BITS, as_table, mirrored_hash, nearest, perceptual_hash
from model.photo_checks import photo_facts

SHARED = Path(__file__).parents[2].parent / "shared"
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


def photo(name: str) -> np.ndarray:
    return getattr(data, name)()


def recompressed(rgb: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def sepia(rgb: np.ndarray) -> np.ndarray:
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    toned = np.stack([gray, 0.86 * gray, 0.67 * gray], axis=-1)
    return recompressed(
        np.clip(toned + np.random.default_rng(0).normal(0, 2, toned.shape), 0, 255).astype(np.uint8), 60
    )


def poster(rgb: np.ndarray) -> np.ndarray:
    flat = cv2.medianBlur((rgb >> 6 << 6) + 32, 9)
    return cv2.resize(flat, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs_are_fit(name: str) -> None:
    facts = photo_facts(photo(name), least_px=160)
    assert facts.fault == ""
    assert (facts.height_px, facts.width_px) == photo(name).shape[:2]
    assert facts.colourfulness > 15


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda rgb: cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), "gray"),
        (sepia, "toned"),
        (lambda rgb: cv2.resize(rgb, (200, 120)), "too small"),
        (poster, "synthetic"),
        (lambda rgb: np.random.default_rng(1).integers(0, 256, rgb.shape, np.uint8), "synthetic"),
    ],
    ids=["gray", "sepia", "small", "poster", "noise"],
)
def test_what_teaches_nothing_is_named(name: str, change, fault: str) -> None:
    assert photo_facts(change(photo(name)), least_px=160).fault.split(":")[0] == fault


def test_a_dull_photo_is_named() -> None:
    rgb = photo("rocket").astype(np.float32)
    gray = rgb.mean(2, keepdims=True)
    faded = (gray + 0.35 * (rgb - gray)).astype(np.uint8)
    assert photo_facts(faded, least_px=160).fault.split(":")[0] == "dull"


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize(
    "change",
    [
        lambda rgb: cv2.resize(rgb, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA),
        lambda rgb: cv2.resize(rgb, (256, 256)),
        lambda rgb: recompressed(rgb, 30),
        lambda rgb: cv2.convertScaleAbs(rgb, alpha=0.85, beta=15),
        lambda rgb: np.ascontiguousarray(rgb[4:-4, 4:-4]),
    ],
    ids=["smaller", "squashed", "jpeg", "brighter", "trimmed"],
)
def test_the_same_picture_is_known_again_mirrored_too(name: str, change) -> None:
    table = as_table([perceptual_hash(photo(other)) for other in PHOTOS])
    copy = change(photo(name))
    for picture in (copy, np.ascontiguousarray(copy[:, ::-1])):
        hit = nearest(table, perceptual_hash(picture), mirrored_hash(picture))
        assert hit is not None and hit[0] == PHOTOS.index(name) and hit[1] <= NEAR_BITS


def test_different_pictures_are_far_apart() -> None:
    hashes = [perceptual_hash(photo(name)) for name in PHOTOS]
    for number, name in enumerate(PHOTOS):
        others = as_table(hashes[:number] + hashes[number + 1 :])
        assert nearest(others, hashes[number], mirrored_hash(photo(name))) is None
    assert nearest(as_table([]), hashes[0]) is None


@pytest.mark.skipif(not (SHARED / "eval/photos").is_dir(), reason="needs ../shared/eval/photos")
def test_the_shipped_hashes_are_those_of_the_evaluation_set() -> None:
    from worker.curation import evaluation_hashes

    names, table = evaluation_hashes("")
    files = sorted((SHARED / "eval/photos").glob("*.jpg"))
    assert len(names) == len(files)
    for file in files[::25]:
        rgb = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        hit = nearest(table, perceptual_hash(rgb))
        assert hit is not None and names[hit[0]] == file.name
