"""Training photos: find them in any folder tree, decode them once into a cache, split off a hold-out.

Two forms are read: trees of JPEG, PNG, WebP and TIFF files (FFHQ, Landscape Pictures and the like as they unpack), and
the `.npy` arrays of the Image Colorization set (`gray_scale.npy` with L, `ab1.npy`, `ab2.npy`, ... with the colours, in
OpenCV's 8-bit Lab), which are mapped, never loaded whole.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.metrics import colourfulness
from model.rarity import HISTOGRAM_BINS

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})
#: a photo must be at least this large, and at most this stretched, to be learned from
LEAST_SIDE_PX = 48
MOST_STRETCH = 1.5

logger = logging.getLogger(__name__)


class PhotosError(ValueError):
    """No usable colour photos where they were looked for."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo before decoding: a file, or a row of an Image Colorization set."""

    #: stable name, the path below the folder given; decides order, hold-out and sample
    name: str
    #: what it is balanced by: the first folder of the name, or the folder given
    source: str
    path: Path
    row: int = -1


def find_photos(folders: Sequence[Path]) -> list[Photo]:
    """All photos below the folders, sorted by name.

    Raises:
        PhotosError: a folder is missing, or none of them holds a photo.
    """
    found: list[Photo] = []
    for folder in folders:
        if not folder.exists():
            raise PhotosError(f"The photo folder {folder} does not exist; give a folder of colour photos.")
        found += _in_folder(folder)
    if not found:
        looked = ", ".join(str(folder) for folder in folders)
        raise PhotosError(f"No JPEG, PNG, WebP, TIFF or L/ab .npy photos were found below {looked}.")
    return sorted(found, key=lambda photo: (photo.name, str(photo.path)))


def _in_folder(folder: Path) -> list[Photo]:
    photos: list[Photo] = []
    for path in sorted(folder.rglob("*")):
        if path.name == "gray_scale.npy":
            photos += _array_photos(folder, path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            name = path.relative_to(folder).as_posix()
            photos.append(Photo(name, name.split("/")[0] if "/" in name else folder.name, path))
    return photos


def _colour_arrays(light: Path) -> list[np.ndarray]:
    """The ab arrays that belong to a `gray_scale.npy`: beside it, or below a folder `ab` beside its own."""
    for folder in (light.parent, light.parent.parent / "ab"):
        if paths := sorted(folder.glob("ab*.npy") if folder == light.parent else folder.rglob("ab*.npy")):
            return [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
    raise PhotosError(f"{light} has no ab1.npy, ab2.npy, ... beside it; unpack the whole set.")


def _array_photos(folder: Path, light: Path) -> list[Photo]:
    rows = min(len(np.load(light, mmap_mode="r", allow_pickle=False)), sum(len(a) for a in _colour_arrays(light)))
    name = light.relative_to(folder).as_posix()
    return [Photo(f"{name}#{row:06d}", folder.name, light, row) for row in range(rows)]


def draw(photos: Sequence[Photo], count: int | None, seed: int) -> list[Photo]:
    """`count` photos drawn without replacement by the seed, in their old order; all of them for None."""
    if count is None or count >= len(photos):
        return list(photos)
    chosen = np.random.default_rng(seed).choice(len(photos), count, replace=False)
    return [photos[i] for i in sorted(chosen)]


def decode(photo: Photo) -> np.ndarray:
    """The photo as RGB uint8 `[H, W, 3]`.

    Raises:
        PhotosError: it cannot be decoded.
    """
    if photo.row >= 0:
        return _from_arrays(photo)
    try:
        data = np.fromfile(photo.path, np.uint8)
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error) as error:
        raise PhotosError(f"{photo.path} cannot be read: {error}") from error
    if bgr is None:
        raise PhotosError(f"{photo.path} cannot be decoded.")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _from_arrays(photo: Photo) -> np.ndarray:
    light = np.load(photo.path, mmap_mode="r", allow_pickle=False)[photo.row]
    row = photo.row
    for colours in _colour_arrays(photo.path):
        if row < len(colours):
            lab = np.dstack([light.reshape(light.shape[:2]), colours[row]]).astype(np.uint8)
            return cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
        row -= len(colours)
    raise PhotosError(f"{photo.name} has no colours.")


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


def shrink(rgb: np.ndarray, short_px: int) -> np.ndarray:
    """Shrink to a short side of `short_px`, cutting off what makes the long side longer than `MOST_STRETCH` of it."""
    height, width = rgb.shape[:2]
    scale = min(1.0, short_px / min(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    longest = int(MOST_STRETCH * min(size))
    top, left = max(0, size[1] - longest) // 2, max(0, size[0] - longest) // 2
    return np.ascontiguousarray(small[top : top + longest, left : left + longest])


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

    A photo that is corrupt, tiny or without colour is left out and named in `Pack.dropped`.

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
    if not stem.with_suffix(".npz").exists():
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
        return Pack(
            pixels=np.memmap(stem.with_suffix(".u8"), np.uint8, "r"),
            starts=index["starts"],
            sizes=index["sizes"],
            histograms=index["histograms"],
            sources=np.array([numbers[name] for name in text["sources"]]),
            names=text["names"],
            source_names=source_names,
            dropped=text["dropped"],
        )


def split_holdout(pack: Pack, count: int, sources: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the photos to train on and of a hold-out of at most `count`, at most a fifth of all.

    Which photos are held out depends only on the sha256 of their names, so every run on the same photos agrees; every
    source gives a share that grows with the square root of its size. With `sources` those are held out whole instead,
    and the hold-out is all of them: what a net scores on sources that it never saw is nearer to what it will do.

    Raises:
        PhotosError: a source is not among the photos, or nothing is left to train on.
    """
    if sources:
        return _split_by_source(pack, sources)
    count = min(count, len(pack) // 5)
    roots = np.sqrt(np.bincount(pack.sources, minlength=len(pack.source_names)))
    quotas = np.floor(roots / roots.sum() * count).astype(int)
    held: list[int] = []
    for source, quota in enumerate(quotas):
        members = np.flatnonzero(pack.sources == source)
        held += sorted(members.tolist(), key=lambda i: _fingerprint(pack.names[i]))[:quota]
    mask = np.zeros(len(pack), bool)
    mask[held] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _split_by_source(pack: Pack, sources: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    unknown = sorted(set(sources) - set(pack.source_names))
    if unknown:
        raise PhotosError(f"No photos come from '{unknown[0]}'; the sources are {', '.join(pack.source_names)}.")
    mask = np.isin(pack.sources, [pack.source_names.index(source) for source in sources])
    if mask.all():
        raise PhotosError("Every photo would be held out; leave at least one source to train on.")
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _fingerprint(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def each(pack: Pack, indices: np.ndarray) -> Iterator[np.ndarray]:
    """The photos of those indices, RGB uint8, one after another."""
    for index in indices:
        yield pack.photo(int(index))
