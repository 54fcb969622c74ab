"""TIFF directories, read and nothing else: tags without pixels, for TIFF files and for the EXIF block of other kinds.

Written out because decoders open too late (after allocating) or too kindly (page 1 of 9, half a file). Every read is
bounded, so a header can ask for nothing that the file does not hold. Source: TIFF 6.0 (Adobe 1992), BigTIFF (2007).
"""

import dataclasses
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

#: `read(offset, count)` gives at most `count` bytes
Read = Callable[[int, int], bytes]

_MAX_ENTRIES: Final = 4096
_MAX_DIRECTORIES: Final = 20_000
#: the longest tag read (an ICC profile, XMP, a table of strips); a longer one is left out
_MAX_VALUE_BYTES: Final = 64 * 2**20

# TIFF field type -> size in bytes and struct letter; rationals are two integers; the rest are bytes
_TYPES: Final[Mapping[int, tuple[int, str]]] = {
    1: (1, "B"), 2: (1, ""), 3: (2, "H"), 4: (4, "I"), 5: (8, "II"), 6: (1, "b"), 7: (1, ""), 8: (2, "h"),
    9: (4, "i"), 10: (8, "ii"), 11: (4, "f"), 12: (8, "d"), 13: (4, "I"), 16: (8, "Q"), 17: (8, "q"), 18: (8, "Q"),
}  # fmt: skip


class TagsUnreadable(ValueError):
    """The directories cannot be followed; `beyond_the_end` says whether because the file ends too early."""

    def __init__(self, message: str, *, beyond_the_end: bool = False) -> None:
        super().__init__(message)
        self.beyond_the_end = beyond_the_end


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tag:
    """One entry as it lies in the file: its type, its number of values, its bytes in the file's byte order."""

    type: int
    count: int
    raw: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Directory:
    """One TIFF directory (IFD)."""

    order: str  # "<" or ">"
    offset: int
    end: int  # where the offset of the next directory stands
    tags: Mapping[int, Tag]

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The integer values of a tag; empty when it is absent, of another type, or too short."""
        entry = self.tags.get(tag)
        letters = _TYPES[entry.type][1] if entry else ""
        if entry is None or len(letters) != 1 or letters in "fd":
            return ()
        return struct.unpack(f"{self.order}{entry.count}{letters}", entry.raw)

    def number(self, tag: int, default: int) -> int:
        """The first integer value of a tag, or the default."""
        return next(iter(self.numbers(tag)), default)

    def ratio(self, tag: int) -> float | None:
        """The first rational (or integer) value of a tag; None when absent or divided by zero."""
        entry = self.tags.get(tag)
        if entry is not None and entry.type in (5, 10) and entry.count:
            above, below = struct.unpack(self.order + _TYPES[entry.type][1], entry.raw[:8])
            return above / below if below else None
        return next((float(value) for value in self.numbers(tag)), None)

    def data(self, tag: int) -> bytes | None:
        """The bytes of a tag as stored."""
        entry = self.tags.get(tag)
        return entry.raw if entry else None

    def table(self, tag: int) -> npt.NDArray[np.int64]:
        """The integer values of a long tag (offsets of strips), `[count]`."""
        return np.array(self.numbers(tag)).astype(np.int64)  # some write them with a sign


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where numbers lie in a classic or a big TIFF."""

    order: str
    big: bool

    @property
    def word(self) -> str:
        """Letter, for `struct`, of an offset in this layout."""
        return "Q" if self.big else "I"


def _unpack(read: Read, layout: _Layout, letters: str, offset: int) -> tuple[int, ...]:
    size = struct.calcsize(layout.order + letters)
    raw = read(offset, size)
    if len(raw) < size:
        raise TagsUnreadable("its directory lies beyond its end", beyond_the_end=True)
    return struct.unpack(layout.order + letters, raw)


def _layout(read: Read) -> _Layout:
    head = read(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise TagsUnreadable("it does not start like a TIFF", beyond_the_end=len(head) < 8)
    magic = struct.unpack(order + "H", head[2:4])[0]
    if magic not in (42, 43):
        raise TagsUnreadable("it does not start like a TIFF")
    return _Layout(order, big=magic == 43)


def directory_at(read: Read, size: int, offset: int) -> Directory:
    """The directory at a place that `directories` has told; raises TagsUnreadable."""
    return _directory(read, size, _layout(read), offset)[0]


def alone(read: Read, directory: Directory) -> Mapping[int, bytes]:
    """What to read where, so that a TIFF begins and ends with that directory."""
    layout = _layout(read)
    first = struct.pack(layout.order + layout.word, directory.offset)
    return {8 if layout.big else 4: first, directory.end: bytes(len(first))}


def directories(read: Read, size: int) -> Iterator[Directory]:
    """Directories of a TIFF in file order, lazily.

    Args:
        read: gives bytes of the file (or of an EXIF block).
        size: of the file, bytes.

    Raises:
        TagsUnreadable: no TIFF, a directory beyond the end, a chain that bites its tail.
    """
    layout = _layout(read)
    (offset,) = _unpack(read, layout, layout.word, 8 if layout.big else 4)
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) >= _MAX_DIRECTORIES:
            raise TagsUnreadable("its chain of directories has no end")
        seen.add(offset)
        directory, offset = _directory(read, size, layout, offset)
        yield directory


def sub_directory(read: Read, size: int, parent: Directory, offset: int) -> Directory:
    """A directory that a tag points to (EXIF, GPS) in a classic TIFF; raises TagsUnreadable."""
    return _directory(read, size, _Layout(parent.order, big=False), offset)[0]


def _directory(read: Read, size: int, layout: _Layout, offset: int) -> tuple[Directory, int]:
    """One directory and the offset of the next."""
    counter, entry_size, inline = ("Q", 20, 8) if layout.big else ("H", 12, 4)
    (count,) = _unpack(read, layout, counter, offset)
    if not 0 < count <= _MAX_ENTRIES:
        raise TagsUnreadable(f"its directory claims {count} entries")
    start = offset + struct.calcsize(layout.order + counter)
    block = read(start, count * entry_size)
    if len(block) < count * entry_size:
        raise TagsUnreadable("its directory lies beyond its end", beyond_the_end=True)
    tags: dict[int, Tag] = {}
    for at in range(0, len(block), entry_size):
        number, kind, values = struct.unpack_from(layout.order + "HH" + layout.word, block, at)
        field = block[at + entry_size - inline : at + entry_size]
        if number in tags:
            continue  # unread: thousands of times the same would take hours
        raw = _value(read, size, layout, kind, values, field)
        if raw is not None:
            tags[number] = Tag(type=kind, count=values, raw=raw)
    after = read(start + len(block), inline)
    following = struct.unpack(layout.order + layout.word, after)[0] if len(after) == inline else 0
    return Directory(order=layout.order, offset=offset, end=start + len(block), tags=tags), following


def _value(read: Read, size: int, layout: _Layout, kind: int, values: int, field: bytes) -> bytes | None:
    """The bytes of one entry; None when its type is unknown or its bytes are not in the file."""
    if kind not in _TYPES:
        return None
    length = _TYPES[kind][0] * values
    if length <= len(field):
        return field[:length]
    (offset,) = struct.unpack(layout.order + layout.word, field)
    if length > _MAX_VALUE_BYTES or offset + length > size:
        return None
    raw = read(offset, length)
    return raw if len(raw) == length else None
