"""The base set: the photographs that the weights which ship learned from, as a list. The photographs are not shipped.

`replay/base_set.csv.xz` has a line for each (sha256 and size of the file, source, licence where it has one of its own),
`replay/base_sources.csv` one for each source. Whoever has the files lets `base_photos` point at them, whatever the
folders are called. Whole sources are held out: never learned from, so that versions can be judged on them.

    python -m model.base_set PHOTOS    # writes the list anew, from a folder with one subfolder per source
"""

import argparse
import csv
import dataclasses
import functools
import hashlib
import io
import lzma
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from model.config import PRESETS
from model.metrics import colourfulness
from model.photos import Photo, decode, find_photos, shrink

HERE: Final = Path(__file__).parent / "replay"
LISTED: Final = HERE / "base_set.csv.xz"
SOURCES: Final = HERE / "base_sources.csv"
HELD_OUT: Final = "holdout"
COLUMNS: Final = ("sha256", "bytes", "source", "licence")
#: which says what is left out as too dull, and on how small a copy that is measured
TRAINED_BY: Final = PRESETS["default"]


@dataclasses.dataclass(frozen=True)
class Listed:
    """A photograph of the base set."""

    sha256: str
    size_bytes: int
    source: str
    #: as its source states it; "" where none is stated
    licence: str
    #: not to be learned from: versions are judged on its source
    held_out: bool


@functools.lru_cache(maxsize=1)
def listed() -> Mapping[str, Listed]:
    """The list that ships, by sha256."""
    with SOURCES.open(encoding="utf-8", newline="") as file:
        sources = {row["source"]: row for row in csv.DictReader(file)}
    with lzma.open(LISTED, "rt", encoding="utf-8", newline="") as file:
        return {
            row["sha256"]: Listed(
                sha256=row["sha256"],
                size_bytes=int(row["bytes"]),
                source=row["source"],
                licence=row["licence"] or sources[row["source"]]["licence"],
                held_out=sources[row["source"]]["use"] == HELD_OUT,
            )
            for row in csv.DictReader(file)
        }


@functools.lru_cache(maxsize=1)
def _sizes() -> frozenset[int]:
    return frozenset(photo.size_bytes for photo in listed().values())


def find(photo: Photo) -> Listed | None:
    """The base set's entry for a file, by its content; None when it is none of it, or cannot be read."""
    try:
        if photo.row >= 0 or photo.path.stat().st_size not in _sizes():
            return None  # most foreign files end here, unread
        return listed().get(hashlib.sha256(photo.path.read_bytes()).hexdigest())
    except OSError:
        return None


def entries(folder: Path) -> Iterator[tuple[str, int, str, str]]:
    """Rows of the list for a folder with one subfolder per source, without what training leaves out as too dull.

    Licences of single photos are read from `*_attributions.csv` (file, licence, …) in the folder.
    """
    licences: dict[str, str] = {}
    for path in sorted(folder.glob("*_attributions.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            licences |= {row["file"]: row["licence"] for row in csv.DictReader(file)}
    least, short_px = TRAINED_BY.sampling.least_colourfulness, TRAINED_BY.cache_px
    for photo in find_photos([folder]):
        if colourfulness(shrink(decode(photo), short_px)) >= least:
            data = photo.path.read_bytes()
            yield hashlib.sha256(data).hexdigest(), len(data), photo.source, licences.get(photo.name, "")


def write(folder: Path, target: Path) -> int:
    """Write the list of a folder's photographs; returns how many."""
    rows = sorted(entries(folder), key=lambda row: (row[2], row[0]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    target.write_bytes(lzma.compress(text.getvalue().encode(), preset=9))
    return len(rows)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Write the list of the photographs that training learns from.")
    arguments.add_argument("photos", type=Path)
    sys.stdout.write(f"{write(arguments.parse_args().photos, LISTED)} photographs in {LISTED}\n")
