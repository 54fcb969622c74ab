"""A file of many pages takes time by their number: nothing goes through all of them for each."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from worker import decoders, headers, scans, tiff_tags
from worker.errors import ScanUnreadable

PAGES = 40
GRAY = np.random.default_rng(0).integers(20, 230, (PAGES, 24, 32), dtype=np.uint8)


@pytest.fixture(params=["<", ">", "big"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    options = {"bigtiff": True} if request.param == "big" else {"byteorder": request.param}
    with tifffile.TiffWriter(tmp_path / "a.tif", **options) as made:
        for page in GRAY:
            made.write(page, photometric="minisblack", compression="zlib", metadata=None)
    return tmp_path / "a.tif"


def test_each_directory_is_read_a_few_times(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets, one = [], tiff_tags._directory

    def counted(read: Any, size: int, layout: Any, offset: int) -> Any:
        offsets.append(offset)
        return one(read, size, layout, offset)

    monkeypatch.setattr(tiff_tags, "_directory", counted)
    with scans.open_scan(book, force=True) as scan:
        assert sum(1 for page in scan.all_pages() for _ in page.strips()) == PAGES
    assert len(offsets) <= 3 * PAGES


def test_a_page_is_what_it_was_among_the_others(book: Path) -> None:
    fd = os.open(book, os.O_RDONLY)
    try:
        read, size = scans.reader(fd, book.stat().st_size), book.stat().st_size
        first = headers.read_header(read, size)
        for page, gray in enumerate(GRAY):
            header = headers.read_header(read, size, page, first)
            assert header == headers.read_header(read, size, page)
            assert (np.concatenate([*decoders.decode(fd, header, 10)]) == gray).all()
        assert decoders._open(fd, header, []).get("n-pages") == 1, (
            "libtiff goes through all directories at each opening"
        )
    finally:
        os.close(fd)


def test_a_share_that_fails_in_the_middle_is_no_broken_scan(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd, pread = os.open(book, os.O_RDONLY), os.pread
    header = headers.read_header(scans.reader(fd, book.stat().st_size), book.stat().st_size, 5)

    def failing(descriptor: int, count: int, offset: int) -> bytes:
        if offset > 100:
            raise OSError(5, "Input/output error")
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(ScanUnreadable, match="EIO"):
        list(decoders.decode(fd, header, 10))
    monkeypatch.undo()
    os.close(fd)
