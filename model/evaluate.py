"""Judging a version on colour photos it has never seen, by a fixed protocol.

The protocol (that of the figures in MODEL_CARD.md): the photo's L* as an 8-bit gray picture goes through the very
`Colorizer` that serves; its ab is brought to the picture's size bicubically, into sRGB's gamut at constant L* and hue
as in the derivatives, and merged with the gray picture's L*; both pictures are stretched to 256x256 by area and
compared there. Nothing is cropped, nothing is chosen by its outcome.
"""

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.colorizer import Colorizer
from model.framing import STRIDE_PX
from model.lpips import Lpips
from model.metrics import ab_l1, ciede2000, colour_sums, colourfulness, mean_chroma, psnr
from model.photos import Photo, PhotosError, decode, find_photos
from model.registry import Version, shipped
from model.scores import PhotoScore, SetScore, score_categories, score_set
from model.sheets import lab_to_rgb, write_sheet

PROTOCOL = "whole photo, 8-bit L* in, ab bicubic, gamut at constant L*, compared at 256x256 (area)"
COMPARED_PX = 256
SHEET_PHOTOS = 24
WORST_PHOTOS = 20

#: L* `[H, W]` -> ab `[h, w, 2]`
Colour = Callable[[np.ndarray], np.ndarray]
#: the size that the two-size figure compares with, as a multiple of the serving size
SECOND_SIZE = 1.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What a version reaches on a set of photos."""

    version: str
    weights_sha256: str
    #: serving size and the size that `two_size` compares it with, px; 0 where there is no second
    sizes_px: tuple[int, int]
    photos: Path
    protocol: str
    overall: SetScore
    categories: dict[str, SetScore]
    #: the same photos left without colour: what any figure has to be read against
    gray: SetScore
    rows: list[PhotoScore]
    #: photos that could not be read, with the reason
    skipped: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        rows = [{k: v for k, v in dataclasses.asdict(row).items() if v == v} for row in self.rows]  # no NaN in JSON
        return dataclasses.asdict(self) | {"photos": str(self.photos), "rows": rows}


def no_colour(light: np.ndarray) -> np.ndarray:
    """The gray baseline: L* `[H, W]` -> ab = 0 `[H, W, 2]` float32."""
    return np.zeros((*light.shape, 2), np.float32)


def gray_of(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A photo as an archive's scanner would give it.

    Args:
        rgb: uint8 `[H, W, 3]`.

    Returns:
        The 8-bit gray picture `[H, W]` whose L* is the photo's, rounded, and that picture's L* as float32 0..100.
    """
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    lab[..., 1:] = 0
    shades = np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)[..., 0], 0, 1)
    gray = (shades * 255 + 0.5).astype(np.uint8)
    light = cv2.cvtColor(np.dstack([gray] * 3).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 0]
    return gray, np.ascontiguousarray(light)


def compare(
    photo: Photo,
    category: str,
    truth: np.ndarray,
    ours: np.ndarray,
    lpips: Lpips | None = None,
    two_size: float = float("nan"),
) -> PhotoScore:
    """Figures of one photo; both pictures RGB uint8 of any size and shape. LPIPS only where its net is given."""
    size = (COMPARED_PX, COMPARED_PX)
    pictures = [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in (truth, ours)]
    labs = [cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for p in pictures]
    sums = colour_sums(*labs)
    difference = (labs[1] - labs[0]).mean((0, 1))
    return PhotoScore(
        file=photo.name,
        category=category,
        psnr=psnr(*pictures),
        ab_l1=ab_l1(*labs),
        de00=float(ciede2000(*labs).mean()),
        cf=colourfulness(pictures[1]),
        cf_truth=colourfulness(pictures[0]),
        chroma=mean_chroma(labs[1]),
        chroma_truth=mean_chroma(labs[0]),
        d_a=float(difference[1]),
        d_b=float(difference[2]),
        truth_truth=sums[0],
        ours_ours=sums[1],
        truth_ours=sums[2],
        lpips=lpips.distance(*pictures) if lpips else float("nan"),
        two_size=two_size,
    )


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean |Δab| of two answers to one picture, ab `[h, w, 2]` of any sizes, both brought to 256x256 bicubically."""
    size = (COMPARED_PX, COMPARED_PX)
    first, second = (
        cv2.resize(np.ascontiguousarray(ab, np.float32), size, interpolation=cv2.INTER_CUBIC) for ab in (one, other)
    )
    return float(np.abs(first - second).mean())


def spread(photos: list[Photo], count: int | None) -> list[Photo]:
    """At most so many photos, evenly spread over the set; all of them for None."""
    if count is None or count >= len(photos):
        return photos
    return [photos[i * len(photos) // count] for i in range(count)]


def colourised(rgb: np.ndarray, colour: Colour) -> np.ndarray:
    """A photo made gray and coloured again, RGB uint8 `[H, W, 3]`."""
    _, light = gray_of(rgb)
    return lab_to_rgb(light, colour(light))


def categories_of(folder: Path, photos: list[Photo]) -> dict[str, str]:
    """Each photo's category by its name.

    From `manifest.csv` (columns file, category) in the folder or beside it; else the first folder of the name; else
    what stands before the first underscore; else "photos".
    """
    known: dict[str, str] = {}
    for manifest in (folder.parent / "manifest.csv", folder / "manifest.csv"):
        if manifest.is_file():
            with manifest.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if {"file", "category"} <= set(reader.fieldnames or ()):
                    known |= {row["file"]: row["category"] for row in reader}
    return {photo.name: known.get(photo.name) or _category_by_name(photo.name) for photo in photos}


def _category_by_name(name: str) -> str:
    if "/" in name:
        return name.split("/")[0]
    return name.split("_")[0] if "_" in name else "photos"


def evaluate(
    folder: Path,
    version: Version | None = None,
    *,
    draws: int = 2000,
    sheet: Path | None = None,
    worst_sheet: Path | None = None,
    colour: Colour | None = None,
    second: Colour | None = None,
    lpips: Path | None = None,
    count: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationReport:
    """Score a version on a folder of colour photos.

    Args:
        folder: colour photos, in the forms that `model.photos` reads.
        version: what to judge; the shipped one by default.
        draws: bootstrap draws for the 95 % intervals; 0 for none.
        sheet: where to write a contact sheet (gray | ours | truth) of 24 photos spread over the set, or None.
        worst_sheet: where to write the same of the 20 photos with the largest mean ΔE00, or None.
        colour: another way from L* to ab, in place of the version's `Colorizer`.
        second: with `colour`, what `two_size` compares it with; else it is the version at `SECOND_SIZE` times its size.
        lpips: LPIPS's `alexnet.ckpt` (see `model.lpips`), or None to leave that figure out.
        count: judge only so many photos, spread over the set.
        progress: called with photos done and photos in all.

    Raises:
        LpipsError: the file is not LPIPS's AlexNet.
        PhotosError: no readable photos in the folder.
        WeightsError: the version cannot be loaded.
    """
    judged = version or shipped()
    sizes_px = (judged.serve_size_px, _second_size(judged) if colour is None else 0)
    if colour is None:
        colour = Colorizer(judged).chroma
        second = Colorizer(judged.served(sizes_px[1], judged.framing, judged.flip_average)).chroma
    photos = spread(find_photos([folder]), count)
    judge = _Judge(colour, second, Lpips(lpips) if lpips else None, categories_of(folder, photos))
    rows, plain, skipped = judge.scores(photos, progress)
    if not rows:
        raise PhotosError(f"None of the {len(photos)} photos in {folder} can be decoded.")
    _write_sheets(rows, photos, colour, sheet, worst_sheet)
    return EvaluationReport(
        version=judged.name,
        weights_sha256=judged.weights_sha256,
        sizes_px=sizes_px,
        photos=folder,
        protocol=PROTOCOL,
        overall=score_set(rows, draws),
        categories=score_categories(rows, draws),
        gray=score_set(plain, draws),
        rows=rows,
        skipped=skipped,
    )


@dataclasses.dataclass(frozen=True)
class _Judge:
    """What colours the photos, and what they are compared with and by."""

    colour: Colour
    second: Colour | None
    lpips: Lpips | None
    categories: dict[str, str]

    def scores(
        self, photos: list[Photo], progress: Callable[[int, int], None]
    ) -> tuple[list[PhotoScore], list[PhotoScore], dict[str, str]]:
        """Figures of each photo, of the same left gray, and the photos that cannot be decoded, with the reason."""
        rows, plain, skipped = [], [], {}
        for number, photo in enumerate(photos):
            try:
                truth = decode(photo)
            except PhotosError as error:
                skipped[photo.name] = str(error)
                continue
            light = gray_of(truth)[1]
            answer = self.colour(light)
            two_size = apart(answer, self.second(light)) if self.second else float("nan")
            rows.append(self._compare(photo, truth, lab_to_rgb(light, answer), two_size))
            plain.append(self._compare(photo, truth, lab_to_rgb(light, no_colour(light)), 0.0))
            progress(number + 1, len(photos))
        return rows, plain, skipped

    def _compare(self, photo: Photo, truth: np.ndarray, ours: np.ndarray, two_size: float) -> PhotoScore:
        return compare(photo, self.categories[photo.name], truth, ours, self.lpips, two_size)


def _second_size(version: Version) -> int:
    """The size that `two_size` compares with, a multiple of the stride and never the serving size itself."""
    larger = int(version.serve_size_px * SECOND_SIZE / STRIDE_PX + 0.5) * STRIDE_PX
    return max(version.serve_size_px + STRIDE_PX, larger)


def _write_sheets(
    rows: list[PhotoScore], photos: list[Photo], colour: Colour, sheet: Path | None, worst_sheet: Path | None
) -> None:
    by_name = {photo.name: photo for photo in photos}
    some = [by_name[row.file] for row in rows[:: max(1, len(rows) // SHEET_PHOTOS)][:SHEET_PHOTOS]]
    worst = [by_name[row.file] for row in sorted(rows, key=lambda row: -row.de00)[:WORST_PHOTOS]]
    for path, shown in ((sheet, some), (worst_sheet, worst)):
        if path is not None:
            contact_sheet(path, shown, colour)


def contact_sheet(path: Path, photos: list[Photo], colour: Colour, tile_px: int = 200) -> None:
    """Write gray | ours | truth of each photo, two photos a row, as one PNG."""
    rows = []
    for photo in photos:
        truth = decode(photo)
        gray, _ = gray_of(truth)
        ours = colourised(truth, colour)
        rows.append([_tile(picture, tile_px) for picture in (np.dstack([gray] * 3), ours, truth)])
    write_sheet(path, [[tile for row in rows[i : i + 2] for tile in row] for i in range(0, len(rows), 2)])


def _tile(rgb: np.ndarray, side_px: int) -> np.ndarray:
    """The picture fitted into a white square."""
    scale = side_px / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    tall, wide = side_px - size[1], side_px - size[0]
    padding = ((tall // 2, tall - tall // 2), (wide // 2, wide - wide // 2), (0, 0))
    return np.pad(small, padding, constant_values=255)
