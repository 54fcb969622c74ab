"""Champion and challenger on the same photos: rows for the gate, and a sheet that shows both to a person."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from model.evaluate import Colour, categories_of, colourised, compare, gray_of
from model.photos import Photo, PhotosError, decode, find_photos
from model.sheets import write_sheet
from model.verdict import Judged

#: categories in which skin is looked for, by a part of their name
PEOPLE = ("people", "portrait", "person", "face", "group", "family")
_SKIN_PX = 128
_TILE_PX = 160


def judge_photos(
    folder: Path,
    collection: str,
    champion: Colour,
    challenger: Colour,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Judged], list[Judged]]:
    """Rows of both versions for every photo of a folder that can be decoded.

    Args:
        folder: colour photos; their categories are those of `evaluate`.
        collection: `gate.CURATED` or `gate.OPERATOR`.
        champion: its `Colorizer.chroma`.
        challenger: the other's.
        progress: called with photos done and photos in all.

    Raises:
        PhotosError: the folder holds no photos.
    """
    photos = find_photos([folder])
    categories = categories_of(folder, photos)
    rows: tuple[list[Judged], list[Judged]] = ([], [])
    for count, photo in enumerate(photos):
        progress(count, len(photos))
        try:
            truth = decode(photo)
        except PhotosError:
            continue
        for side, colour in zip(rows, (champion, challenger), strict=True):
            side.append(_row(photo, categories[photo.name], collection, truth, colourised(truth, colour)))
    return rows


def _row(photo: Photo, category: str, collection: str, truth: np.ndarray, ours: np.ndarray) -> Judged:
    skin = _skin(truth, ours) if any(word in category.lower() for word in PEOPLE) else {}
    return Judged(score=compare(photo, category, truth, ours), collection=collection, **skin)


def _skin(truth: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    """Hue and grayness of our colours where the original shows skin; nothing where it shows none.

    Skin in Lab: hue 20-75 degrees, chroma 10-50, L 30-92, the range that Caucasian to African skin was measured in
    (Xiao et al., "Characterising the variations in ethnic skin colours", Skin Research and Technology 23, 2017).
    """
    labs = [
        cv2.cvtColor(cv2.resize(p, (_SKIN_PX, _SKIN_PX), interpolation=cv2.INTER_AREA).astype(np.float32) / 255,
                     cv2.COLOR_RGB2Lab)
        for p in (truth, ours)
    ]  # fmt: skip
    light, chroma, hue = labs[0][..., 0], np.hypot(labs[0][..., 1], labs[0][..., 2]), _hue(labs[0])
    mask = (hue >= 20) & (hue <= 75) & (chroma >= 10) & (chroma <= 50) & (light >= 30) & (light <= 92)
    if mask.mean() < 0.02:
        return {}
    a, b = labs[1][..., 1][mask], labs[1][..., 2][mask]
    found = _hue(labs[1])[mask]
    zombie = (np.hypot(a, b) < 5) | (found < -30) | (found > 105)
    return {
        "skin_share": float(mask.mean()),
        "skin_hue": float(np.degrees(np.arctan2(b.mean(), a.mean()))),
        "zombie_share": float(zombie.mean()),
    }


def _hue(lab: np.ndarray) -> np.ndarray:
    return np.degrees(np.arctan2(lab[..., 2], lab[..., 1]))


def before_after_sheet(path: Path, folders: Sequence[Path], champion: Colour, challenger: Colour, each: int) -> None:
    """Write gray | champion | challenger | original of `each` photos spread over each folder, one photo a row."""
    rows, labels = [], []
    for folder in folders:
        photos = find_photos([folder])
        for photo in photos[:: max(1, len(photos) // each)][:each]:
            try:
                truth = decode(photo)
            except PhotosError:
                continue
            scale = _TILE_PX / max(truth.shape[:2])
            small = cv2.resize(truth, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            gray = np.dstack([gray_of(small)[0]] * 3)
            pictures = [gray, colourised(small, champion), colourised(small, challenger), small]
            rows.append([_squared(picture) for picture in pictures])
            labels.append(photo.name[-60:])
    write_sheet(path, rows, labels)


def _squared(rgb: np.ndarray) -> np.ndarray:
    square = np.full((_TILE_PX, _TILE_PX, 3), 255, np.uint8)
    square[: rgb.shape[0], : rgb.shape[1]] = rgb[:_TILE_PX, :_TILE_PX]
    return square
