"""What all writers of derivatives share: the sheet to fill, and strips that are encoded apart and put in order."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worker.tiff_tags import Tag

Codes = npt.NDArray[np.unsignedinteger]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
    """What is written besides pixels."""

    width: int
    height: int
    bit_depth: int
    rows: int  # per strip
    icc: bytes
    xmp: bytes
    iptc: bytes = b""
    #: tags carried over into the main directory, little endian
    tags: Mapping[int, Tag] = dataclasses.field(default_factory=dict)
    #: and those of the EXIF and GPS directories, by the tag that points there
    below: Mapping[int, Mapping[int, Tag]] = dataclasses.field(default_factory=dict)
    orientation: int = 1
    x_resolution: float | None = None
    y_resolution: float | None = None
    resolution_unit: str = "none"


class Writer(Protocol):
    """One picture on its way into a file."""

    def encode(self, codes: Codes) -> bytes:
        """A strip `[rows, W, 3]` as it will lie in the file; touches nothing shared."""

    def append(self, data: bytes) -> None:
        """The next encoded strip."""

    def finish(self) -> None:
        """Everything after the last strip."""

    def abort(self) -> None:
        """Give up; the file is left as it is."""
