"""TIFF: the facts of a page from its directory (TIFF 6.0 and its registered compressions)."""

from collections.abc import Mapping
from typing import Final

from worker.errors import ScanUnsupported
from worker.header import Header, orientation
from worker.tiff_tags import Directory, Read, TagsUnreadable, directories, directory_at

PHOTOMETRIC: Final[Mapping[int, str]] = {
    0: "miniswhite", 1: "minisblack", 2: "rgb", 3: "palette", 4: "mask", 5: "cmyk", 6: "ycbcr", 8: "lab", 9: "icclab",
    10: "itulab", 32803: "raw", 32844: "log", 32845: "log", 34892: "raw",
}  # fmt: skip
COMPRESSION: Final[Mapping[int, str]] = {
    1: "none", 2: "ccitt", 3: "ccitt", 4: "ccitt", 5: "lzw", 6: "old-jpeg", 7: "jpeg", 8: "deflate", 32773: "packbits",
    32809: "thunderscan", 32946: "deflate", 34676: "sgilog", 34677: "sgilog", 34712: "jpeg2000", 34925: "lzma",
    50000: "zstd", 50001: "webp", 50002: "jxl",
}  # fmt: skip
_SAMPLE_FORMAT: Final[Mapping[int, str]] = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex", 6: "complex"}


def tiff_header(read: Read, size: int, page: int, known: Header | None = None) -> Header:
    """The header of one page; raises TagsUnreadable, ScanUnsupported.

    With that of another page of the same file (`known`) only the page's own directory is read, not all of them.
    """
    if known is not None:
        places, total_pixels = known.places, known.total_pixels
    else:
        pages = [(i, d) for i, d in enumerate(directories(read, size)) if not d.number(254, 0) & 0b101]
        places = tuple((i, d.offset) for i, d in pages)
        total_pixels = sum(d.number(256, 0) * d.number(257, 0) for _, d in pages)
    if page >= len(places):
        raise TagsUnreadable(f"it has {len(places)} pages and no page {page + 1}")
    index, offset = places[page]
    directory = directory_at(read, size, offset) if known is not None else pages[page][1]
    if not {256, 257} <= set(directory.tags) or not {273, 324} & set(directory.tags):
        raise TagsUnreadable("it lacks its size or the place of its pixels")
    depths = directory.numbers(258) or (1,)
    if len(set(depths)) > 1:
        raise ScanUnsupported("The TIFF's channels differ in depth: convert it to 8 or 16 bits per channel.")
    resolution = {n: directory.ratio(n) for n in (282, 283)}
    compression = directory.number(259, 1)
    return Header(
        kind="tiff", width=directory.number(256, 0), height=directory.number(257, 0), bit_depth=depths[0],
        photometric=PHOTOMETRIC.get(directory.number(262, -1), "unknown"),
        channels=directory.number(277, 1), extra=len(directory.numbers(338)),
        sample_format=_SAMPLE_FORMAT.get(directory.number(339, 1), "unknown"),
        compression=COMPRESSION.get(compression, f"number {compression}"),
        planar=directory.number(284, 1) == 2 and directory.number(277, 1) > 1, tiled=324 in directory.tags,
        pages=len(places), directory_index=index, places=places, total_pixels=total_pixels,
        orientation=orientation(directory),
        x_resolution=resolution[282], y_resolution=resolution[283],
        resolution_unit={1: "none", 3: "cm"}.get(directory.number(296, 2), "inch") if resolution[282] else "none",
        icc=directory.data(34675), directory=directory,
        xmp=directory.data(700), iptc=directory.data(33723), ends_early=_pixels_beyond(directory, size),
        largest_segment=max(directory.numbers(325 if 324 in directory.tags else 279), default=0),
    )  # fmt: skip


def _pixels_beyond(directory: Directory, size: int) -> bool:
    """Whether a strip or tile of the page lies beyond the end of the file."""
    tiles = 324 in directory.tags
    offsets, counts = directory.table(324 if tiles else 273), directory.table(325 if tiles else 279)
    if not len(counts):
        return bool(len(offsets)) and bool(offsets.max() >= size)
    n = min(len(offsets), len(counts))
    ends = offsets[:n] + counts[:n]
    return bool(n) and bool(((ends > size) | (ends < 0) | (offsets[:n] < 0)).any())
