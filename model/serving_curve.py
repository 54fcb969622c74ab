"""Quality against speed for every way to serve one version: sizes, square or near the picture's shape, flip averaging.

The figures are those of `model.evaluate`; only the time is measured here. The version's saturation is kept, so the
chroma ratio shows by how much a way would have to be calibrated anew.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from model.colorizer import Colorizer
from model.evaluate import categories_of, compare, gray_of, spread
from model.framing import STRIDE_PX, Framing
from model.lpips import Lpips
from model.photos import Photo, PhotosError, decode, find_photos
from model.registry import Version
from model.scores import PhotoScore, SetScore, score_set
from model.sheets import lab_to_rgb


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServingWay:
    """One way to serve a version."""

    size_px: int
    framing: Framing
    flip_average: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What one way reaches, and what it costs."""

    way: ServingWay
    score: SetScore
    #: median time of a picture's chroma on this machine, ms
    ms: float


def ways(sizes_px: Sequence[int], framings: Sequence[Framing], flips: Sequence[bool]) -> list[ServingWay]:
    """All combinations.

    Raises:
        ValueError: a size that no net can serve.
    """
    for size_px in sizes_px:
        if size_px < STRIDE_PX or size_px % STRIDE_PX:
            raise ValueError(f"A serving size of {size_px} px cannot be; take multiples of {STRIDE_PX}.")
    return [
        ServingWay(size_px=size_px, framing=framing, flip_average=flip)
        for size_px in sizes_px
        for framing in framings
        for flip in flips
    ]


def serving_curve(
    folder: Path,
    version: Version,
    tried: Sequence[ServingWay],
    *,
    count: int | None = None,
    draws: int = 0,
    lpips: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[CurvePoint]:
    """Score a version on colour photos once for every way to serve it.

    Args:
        folder: colour photos, in the forms that `model.photos` reads.
        version: what to judge.
        tried: the ways, in the order of the result.
        count: judge only so many photos, spread over the set.
        draws: bootstrap draws for intervals; 0 for none.
        lpips: LPIPS's `alexnet.ckpt`, or None.
        progress: called with pictures done and pictures in all.

    Raises:
        LpipsError: the file is not LPIPS's AlexNet.
        PhotosError: no readable photos in the folder.
        WeightsError: the version cannot be loaded.
    """
    photos = spread(find_photos([folder]), count)
    categories = categories_of(folder, photos)
    seeing = Lpips(lpips) if lpips else None
    points = []
    for number, way in enumerate(tried):  # one net in memory at a time: photos are read again instead
        colorizer = Colorizer(version.served(way.size_px, way.framing, way.flip_average))
        rows, seconds = [], []
        for done, photo in enumerate(photos, number * len(photos) + 1):
            judged = _judged(photo, categories[photo.name], colorizer, seeing)
            if judged is not None:
                rows.append(judged[0])
                seconds.append(judged[1])
            progress(done, len(tried) * len(photos))
        if not rows:
            raise PhotosError(f"None of the {len(photos)} photos in {folder} can be decoded.")
        ms = 1000 * statistics.median(seconds)  # the first of each shape is traced: not the mean
        points.append(CurvePoint(way=way, score=score_set(rows, draws), ms=ms))
    return points


def _judged(photo: Photo, category: str, colorizer: Colorizer, lpips: Lpips | None) -> tuple[PhotoScore, float] | None:
    """A photo's figures and the seconds its chroma took; None for one that cannot be decoded."""
    try:
        truth = decode(photo)
    except PhotosError:
        return None
    light = gray_of(truth)[1]
    began_s = time.perf_counter()
    answer = colorizer.chroma(light)
    took_s = time.perf_counter() - began_s
    return compare(photo, category, truth, lab_to_rgb(light, answer), lpips), took_s
