"""Originals are opened part by part: no link below the root is followed, whenever it came there."""

import errno
import os
from pathlib import Path

import pytest

from daemon import intake
from worker import originals
from worker.errors import ScanUnreadable, ScanVanished
from worker.files import Stamp
from worker.tables import FileState


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A watched folder with a box in it, and the same names outside."""
    for folder in ("root/1911/box", "outside/box"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "plate.tif").write_text(folder.partition("/")[0])
    return tmp_path / "root"


def _read(root: Path, path: bytes) -> str:
    with originals.open_original(bytes(root), path) as fd:
        return os.pread(fd, 100, 0).decode()


def _swap_for_a_link(root: Path) -> None:
    (root / "1911").rename(root / "1911-away")
    (root / "1911").symlink_to(root.parent / "outside")


def test_a_file_is_read_where_it_lies_and_the_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").symlink_to(root)
    assert _read(root, b"1911/box/plate.tif") == _read(tmp_path / "mnt", b"1911/box/plate.tif") == "root"


def test_a_link_in_the_place_of_a_folder_is_not_followed(root: Path) -> None:
    _swap_for_a_link(root)
    with pytest.raises(ScanVanished, match="a link or behind one, which is not followed"):
        _read(root, b"1911/box/plate.tif")


def test_a_link_that_comes_in_between_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the first folder and the next: whoever looked beforehand would be deceived."""
    (root / "1911" / "box").rename(root / "box")
    real = os.open

    def swap(path: bytes, *flags: int, dir_fd: int | None = None) -> int:
        if path == b"box":
            (root / "1911" / "box").symlink_to(root.parent / "outside" / "box")
        return real(path, *flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(ScanVanished):
        _read(root, b"1911/box/plate.tif")


def test_a_file_that_is_a_link_is_not_followed(root: Path) -> None:
    (root / "link.tif").symlink_to("1911/box/plate.tif")
    with pytest.raises(ScanVanished, match="a link or behind one, which is not followed"):
        _read(root, b"link.tif")


def test_a_file_that_may_not_be_opened_is_waited_for_and_says_why(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ScanUnreadable, match=r"cannot be opened \(EACCES: Permission denied\)"):
        _read(root, b"1911/box/plate.tif")


@pytest.mark.parametrize(
    "path", [b"1911/none/plate.tif", b"1911/box/none.tif", b"1911/box/plate.tif/x", b"../outside/box/plate.tif"]
)
def test_what_is_not_there_has_vanished(root: Path, path: bytes) -> None:
    with pytest.raises(ScanVanished):
        _read(root, path)


def test_a_root_that_is_away_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ScanUnreadable, match="Mount it"):
        _read(tmp_path / "none", b"a.tif")


def test_no_descriptor_is_left_open(root: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    _read(root, b"1911/box/plate.tif")
    for path in (b"1911/none/a.tif", b"1911/box/none.tif", b"1911/box/plate.tif/x"):
        with pytest.raises(ScanVanished):
            _read(root, path)
    assert count() == before


def test_nothing_is_hashed_through_a_link_either(root: Path) -> None:
    quiet = Stamp.of((root / "1911" / "box" / "plate.tif").lstat())
    _swap_for_a_link(root)
    outcome = intake.take(bytes(root), b"1911/box/plate.tif", quiet)
    assert isinstance(outcome, intake.NotTaken) and outcome.state is FileState.VANISHED
