"""Training photos decoded once into a cache: a mapped file of pixels, and what sampling needs to know of each photo."""

import dataclasses
import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.metrics import colourfulness
from model.photos import Photo, PhotosError, decode, shrink
from model.rarity import HISTOGRAM_BINS

#: a photo must be at least this large to be learned from
LEAST_SIDE_PX = 48

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pack:
    """Decoded photos in one mapped file, with what sampling needs to know of each.

    `pixels` is flat uint8; photo i is `pixels[start[i]:start[i] + h*w*3]` with `sizes[i] = (h, w)`. `histograms` holds
    the share of each photo's pixels in `HISTOGRAM_BINS`² bins of (a, b); `sources` the index into `source_names`.
    """

    pixels: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    histograms: np.ndarray
    sources: np.ndarray
    names: list[str]
    source_names: list[str]
    dropped: dict[str, str]

    def __len__(self) -> int:
        return len(self.starts)

    def photo(self, index: int) -> np.ndarray:
        """RGB uint8 `[H, W, 3]`, a view into the mapped file."""
        height, width = self.sizes[index]
        start = self.starts[index]
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)


def colour_histogram(rgb: np.ndarray) -> np.ndarray:
    """Share of the pixels in each of `HISTOGRAM_BINS`² bins of (a, b), float32 that adds up to 1."""
    lab = cv2.cvtColor(cv2.resize(rgb, (48, 48), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2Lab).reshape(-1, 3)
    bins = lab[:, 1:].astype(np.int64) * HISTOGRAM_BINS // 256
    counts = np.bincount(bins[:, 0] * HISTOGRAM_BINS + bins[:, 1], minlength=HISTOGRAM_BINS**2)
    return (counts / counts.sum()).astype(np.float32)


def _usable(photo: Photo, short_px: int, least_colourfulness: float) -> tuple[np.ndarray | None, str]:
    try:
        rgb = decode(photo)
    except PhotosError as error:
        return None, str(error)
    if min(rgb.shape[:2]) < LEAST_SIDE_PX:
        return None, f"{photo.name} is smaller than {LEAST_SIDE_PX} px."
    small = shrink(rgb, short_px)
    colour = colourfulness(small)
    if colour < max(least_colourfulness, 1.0):
        return None, f"{photo.name} has hardly any colour (colourfulness {colour:.1f})."
    return small, ""


def _key(photos: Sequence[Photo], short_px: int, least_colourfulness: float) -> str:
    lines = [f"{p.name} {p.path.stat().st_size} {p.path.stat().st_mtime_ns}" for p in photos]
    text = "\n".join([f"pack 1 {short_px} {least_colourfulness}", *lines])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def pack_photos(
    photos: Sequence[Photo],
    cache: Path,
    short_px: int,
    least_colourfulness: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pack:
    """Decode photos into `cache`, or take the file that an earlier run with the same photos left there.

    What an earlier run left is made anew where it is broken: it holds nothing that the photos do not. A photo that is
    corrupt, tiny or without colour is left out and named in `Pack.dropped`.

    Args:
        photos: what to decode.
        cache: folder for the cache, made if absent.
        short_px: short side of the decoded photos; smaller photos keep their size.
        least_colourfulness: Hasler–Süsstrunk colourfulness under which a photo is left out.
        progress: called with photos done and photos in all.

    Raises:
        PhotosError: not one photo was usable.
    """
    cache.mkdir(parents=True, exist_ok=True)
    stem = cache / f"photos-{_key(photos, short_px, least_colourfulness)}"
    if stem.with_suffix(".npz").exists():
        try:
            return _open_pack(stem)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("the cache %s.npz, .u8 is broken and made anew: %s", stem, error)
    index = _write_pixels(photos, stem.with_suffix(".u8"), short_px, least_colourfulness, progress)
    partial = stem.with_suffix(".partial.npz")
    np.savez(partial, **index)
    partial.replace(stem.with_suffix(".npz"))
    return _open_pack(stem)


def _write_pixels(
    photos: Sequence[Photo],
    path: Path,
    short_px: int,
    least_colourfulness: float,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    starts, sizes, histograms, kept, dropped, position = [], [], [], [], {}, 0
    path.unlink(missing_ok=True)  # another run may have the old file mapped, and would die of its being cut
    with path.open("wb") as file:
        for count, photo in enumerate(photos):
            rgb, why_not = _usable(photo, short_px, least_colourfulness)
            if rgb is None:
                dropped[photo.name] = why_not
            else:
                file.write(rgb.tobytes())
                starts.append(position)
                sizes.append(rgb.shape[:2])
                histograms.append(colour_histogram(rgb))
                kept.append(photo)
                position += rgb.size
            if count % 100 == 99:
                progress(count + 1, len(photos))
    if not kept:
        first = next(iter(dropped.values()))
        raise PhotosError(f"None of {len(photos)} photos can be learned from; the first: {first}")
    logger.info("packed %d photos, left out %d", len(kept), len(dropped))
    text = json.dumps({"names": [p.name for p in kept], "sources": [p.source for p in kept], "dropped": dropped})
    return {
        "starts": np.array(starts, np.int64),
        "sizes": np.array(sizes, np.int64),
        "histograms": np.array(histograms),
        "text": np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8),
    }


def _open_pack(stem: Path) -> Pack:
    with np.load(stem.with_suffix(".npz"), allow_pickle=False) as index:
        text = json.loads(index["text"].tobytes().decode("utf-8", "surrogatepass"))
        source_names = sorted(set(text["sources"]))
        numbers = {name: number for number, name in enumerate(source_names)}
        pixels, sizes = np.memmap(stem.with_suffix(".u8"), np.uint8, "r"), index["sizes"]
        if len(pixels) != 3 * sizes.prod(axis=1).sum():
            raise ValueError(f"{len(pixels)} bytes of pixels where {3 * sizes.prod(axis=1).sum()} belong")
        return Pack(
            pixels=pixels,
            starts=index["starts"],
            sizes=sizes,
            histograms=index["histograms"],
            sources=np.array([numbers[name] for name in text["sources"]]),
            names=text["names"],
            source_names=source_names,
            dropped=text["dropped"],
        )
