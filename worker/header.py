"""The facts of one page of a picture file, as every kind of file gives them."""

import dataclasses
from collections.abc import Mapping

from worker.tiff_tags import Directory, TagsUnreadable, directories


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """The facts of one page; what a kind cannot say has its default."""

    kind: str
    width: int
    height: int
    bit_depth: int
    photometric: str = "minisblack"
    channels: int = 1  # colour channels and extra samples together
    extra: int = 0  # of those: alpha or unknown
    sample_format: str = "uint"
    compression: str = "none"
    planar: bool = False
    tiled: bool = False
    pages: int = 1
    total_pixels: int = 0  # of all pages
    directory_index: int = 0  # of the page, among all directories of a TIFF
    places: tuple[tuple[int, int], ...] = ()  # of the pages: that index, and the directory's offset
    orientation: int = 1
    x_resolution: float | None = None
    y_resolution: float | None = None
    resolution_unit: str = "none"
    icc: bytes | None = None
    gamma: float | None = None  # PNG gAMA: code = light ^ gamma
    ends_early: bool = False
    largest_segment: int = 0  # of a TIFF's strips or tiles, bytes as stored
    whole_page: bool = False  # its form makes any decoder hold all of it (interlaced, progressive)
    directory: Directory | None = None
    exif: bytes | None = None  # a TIFF block
    xmp: bytes | None = None
    iptc: bytes | None = None  # IIM records

    @property
    def gray(self) -> bool:
        """One tone per pixel, besides alpha."""
        return self.photometric in ("minisblack", "miniswhite")


def orientation(directory: Directory) -> int:
    """EXIF's 1..8; 1 for anything else."""
    value = directory.number(274, 1)
    return value if 1 <= value <= 8 else 1


def exif_facts(block: bytes, *, resolution: bool = False) -> Mapping[str, object]:
    """Orientation (and resolution) from an EXIF block; nothing when it cannot be read: viewers ignore it as well."""
    try:
        first = next(directories(lambda at, count: block[at : at + count], len(block)), None)
    except TagsUnreadable:
        return {}
    if first is None:
        return {}
    facts: dict[str, object] = {"orientation": orientation(first)}
    x, y = first.ratio(282), first.ratio(283)
    if resolution and x and y:
        unit = {1: "none", 3: "cm"}.get(first.number(296, 2), "inch")
        facts |= {"x_resolution": x, "y_resolution": y, "resolution_unit": unit}
    return facts
