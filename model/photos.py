"""Training photos before packing: find them in any folder tree, draw some, decode one, shrink it.

Two forms are read: trees of JPEG, PNG, WebP and TIFF files (FFHQ, Landscape Pictures and the like as they unpack), and
the `.npy` arrays of the Image Colorization set (`gray_scale.npy` with L, `ab1.npy`, `ab2.npy`, ... with the colours, in
OpenCV's 8-bit Lab), which are mapped, never loaded whole.
"""

import dataclasses
import os
import tokenize
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})
#: how much longer than its short side a photo's long side may stay
MOST_STRETCH = 1.5


class PhotosError(ValueError):
    """No usable colour photos where they were looked for."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo before decoding: a file, or a row of an Image Colorization set."""

    #: stable name, the path below the folder given, after the source where several are; decides order, hold-out, sample
    name: str
    #: what it is balanced by: the folder given where there are several, else the first subfolder, or the one folder
    source: str
    path: Path
    row: int = -1


def find_photos(folders: Sequence[Path]) -> list[Photo]:
    """All photos below the folders, sorted by name.

    Each of several folders is a source: the subfolders of one may be parts of a set (FFHQ has 70), which would make one
    set many sources. Of a single folder the subfolders are the sources.

    Raises:
        PhotosError: a folder is missing or a file, none of them holds a photo, or an array cannot be read.
    """
    found: list[Photo] = []
    for folder, source in zip(folders, _sources(folders), strict=True):
        if not folder.exists():
            raise PhotosError(f"The photo folder {folder} does not exist; give a folder of colour photos.")
        if not folder.is_dir():
            raise PhotosError(f"{folder} is a file. PHOTOS is a folder of colour photos; give the one that it lies in.")
        inside = _in_folder(folder)
        if source:
            inside = [dataclasses.replace(p, name=f"{source}/{p.name}", source=source) for p in inside]
        found += inside
    if not found:
        looked = ", ".join(str(folder) for folder in folders)
        raise PhotosError(f"No JPEG, PNG, WebP, TIFF or L/ab .npy photos were found below {looked}.")
    return sorted(found, key=lambda photo: (photo.name, str(photo.path)))


def _sources(folders: Sequence[Path]) -> list[str]:
    """The source that each of several folders is: its name, after so many parents that no other has it; "" for one."""
    if len(folders) < 2:
        return ["" for _ in folders]
    paths = [Path(os.path.abspath(folder)).parts for folder in folders]
    others = [set(paths) - {path} for path in paths]
    return [
        next("/".join(p[-n:]) for n in range(1, len(p) + 1) if all(o[-n:] != p[-n:] for o in other))
        for p, other in zip(paths, others, strict=True)
    ]


def refuse_unknown(sources: Sequence[str], photos: Sequence[Photo]) -> None:
    """See that photos come from each of the sources, before they are decoded, which may take hours.

    Raises:
        PhotosError: from one none comes; the message lists the names that there are.
    """
    known = sorted({photo.source for photo in photos})
    for source in sources:
        if source not in known:
            raise PhotosError(f"No photos come from '{source}'; the sources are {', '.join(known)}.")


def _in_folder(folder: Path) -> list[Photo]:
    photos: list[Photo] = []
    for path in sorted(folder.rglob("*")):
        if path.name == "gray_scale.npy":
            photos += _array_photos(folder, path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            name = path.relative_to(folder).as_posix()
            photos.append(Photo(name, name.split("/")[0] if "/" in name else folder.name, path))
    return photos


def _array(path: Path, axes: Sequence[int], channels: int) -> np.ndarray:
    """A mapped `.npy` array of rows × height × width, with the channels last where it has one axis more than that.

    Raises:
        PhotosError: it cannot be read, or is no such array.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, OverflowError, tokenize.TokenError) as error:
        raise PhotosError(f"{path} is torn, or no array ({error}); unpack the whole set again.") from error
    if array.dtype.kind not in "uif" or array.ndim not in axes or array.shape[3:] not in ((), (channels,)):
        raise PhotosError(f"{path} is no array of the set: {array.dtype} of shape {array.shape}.")
    return array


def _arrays(light: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """A `gray_scale.npy` and the ab arrays that belong to it: beside it, or below a folder `ab` beside its own."""
    shades = _array(light, (3, 4), 1)
    for folder in (light.parent, light.parent.parent / "ab"):
        if paths := sorted(folder.glob("ab*.npy") if folder == light.parent else folder.rglob("ab*.npy")):
            colours = [_array(path, (4,), 2) for path in paths]
            for path, array in zip(paths, colours, strict=True):
                if array.shape[1:3] != shades.shape[1:3]:
                    sizes = [f"{a.shape[2]}x{a.shape[1]} px" for a in (array, shades)]
                    raise PhotosError(f"{path} holds pictures of {sizes[0]}, and {light} of {sizes[1]}.")
            return shades, colours
    raise PhotosError(f"{light} has no ab1.npy, ab2.npy, ... beside it; unpack the whole set.")


def _array_photos(folder: Path, light: Path) -> list[Photo]:
    shades, colours = _arrays(light)
    name = light.relative_to(folder).as_posix()
    rows = min(len(shades), sum(len(array) for array in colours))
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
    shades, arrays = _arrays(photo.path)
    row = photo.row
    for colours in arrays:
        if row < len(colours):
            light = shades[photo.row].reshape(shades.shape[1:3])
            return cv2.cvtColor(np.dstack([light, colours[row]]).astype(np.uint8), cv2.COLOR_Lab2RGB)
        row -= len(colours)
    raise PhotosError(f"{photo.name} has no colours.")


def shrink(rgb: np.ndarray, short_px: int) -> np.ndarray:
    """Shrink to a short side of `short_px`, cutting off what makes the long side longer than `MOST_STRETCH` of it."""
    height, width = rgb.shape[:2]
    scale = min(1.0, short_px / min(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    longest = int(MOST_STRETCH * min(size))
    top, left = max(0, size[1] - longest) // 2, max(0, size[0] - longest) // 2
    return np.ascontiguousarray(small[top : top + longest, left : left + longest])
