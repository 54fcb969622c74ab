"""Looking at a folder: what is a scan by its name, and what a listing may conclude."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import scan
from worker.files import Stamp


def _touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _files(root: Path, directory: bytes = b"") -> list[bytes]:
    return sorted(path for listing in scan.walk(bytes(root), directory) for path in listing.files)


@pytest.mark.parametrize(
    "name",
    [
        b".DS_Store", b"._a.tif", b".nfs000123", b".smbdeleteAAA1", b".fuse_hidden01", b".a.tif.Xy12", b"Thumbs.db",
        b"THUMBS.DB", b"desktop.ini", b"@eaDir", b"#recycle", b"#snapshot", b"$RECYCLE.BIN", b"lost+found",
        b"System Volume Information", b"~$scan.tif", b"scan.tif~", b"scan.tif.part", b"scan.PARTIAL", b"a.filepart",
        b"a.crdownload", b"a.tmp", b"a.swp", b"a.lock", b".git", b".photochrom-tmp-1",
    ],
)  # fmt: skip
def test_names_that_are_never_scans(name: bytes) -> None:
    assert scan.ignored_by(name) is not None
    assert scan.ignored_path(b"1923/" + name) is not None
    assert scan.ignored_path(name + b"/a.tif") is not None


@pytest.mark.parametrize(
    "name",
    [b"a.tif", b"part.tif", b"a.part.tif", b"~a.tif", b"a.lock.png", b"#1.tif", b"@a.jpg", b"tmp", b"\xff\xfe.tif",
     b"[1].tif", b"a\nb.tif", "Größe.TIF".encode(), b"thumbs.db.tif"],
)  # fmt: skip
def test_names_that_may_be_scans(name: bytes) -> None:
    assert scan.ignored_by(name) is None
    assert scan.ignored_path(b"1923/" + name) is None


def test_the_root_itself_is_never_ignored() -> None:
    assert scan.ignored_path(b"") is None


@given(st.binary(min_size=1, max_size=30))
def test_any_name_is_judged(name: bytes) -> None:
    scan.ignored_by(name)


def test_a_listing_has_regular_files_and_folders_only(tmp_path: Path) -> None:
    file = _touch(tmp_path / "in" / "a.tif")
    _touch(tmp_path / "in" / "deep" / "b.tif")
    _touch(tmp_path / "in" / ".hidden" / "c.tif")
    _touch(tmp_path / "in" / "@eaDir" / "d.jpg")
    outside = _touch(tmp_path / "outside" / "e.tif")
    (tmp_path / "in" / "link.tif").symlink_to(outside)
    (tmp_path / "in" / "folder-link").symlink_to(outside.parent)
    (tmp_path / "in" / "dangling.tif").symlink_to("nowhere")
    (tmp_path / "in" / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "in" / "fifo.tif")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path / "in")
        server.bind("socket.tif")
        listing = scan.list_directory(bytes(tmp_path / "in"), b"")
    assert (listing.complete, listing.error) == (True, "")
    assert listing.subdirectories == [b"deep"]
    assert listing.files == {b"a.tif": Stamp.of(file.stat())}
    assert _files(tmp_path / "in") == [b"a.tif", b"deep/b.tif"]


def test_a_walk_starts_where_it_is_told_and_goes_parents_first(tmp_path: Path) -> None:
    for name in ("a/1.tif", "a/b/2.tif", "a/c/3.tif", "z/4.tif"):
        _touch(tmp_path / name)
    assert [listing.directory for listing in scan.walk(bytes(tmp_path))] == [b"", b"a", b"a/b", b"a/c", b"z"]
    assert _files(tmp_path, b"a") == [b"a/1.tif", b"a/b/2.tif", b"a/c/3.tif"]


def test_names_are_bytes(tmp_path: Path) -> None:
    names = [b"\xff\xfe.tif", b"a\nb.tif", b"x" * 251 + b".tif", b"back\\slash.tif", b" .tif"]
    for name in names:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"x")
    assert _files(tmp_path) == sorted(names)


def test_a_folder_that_is_gone_is_complete_and_empty(tmp_path: Path) -> None:
    listing = scan.list_directory(bytes(tmp_path), b"gone")
    assert (listing.complete, listing.files, listing.error) == (True, {}, "")
    _touch(tmp_path / "file")
    assert scan.list_directory(bytes(tmp_path), b"file").complete
    assert scan.list_directory(bytes(tmp_path), b"file/below").complete


def test_a_root_that_is_gone_lets_nothing_be_concluded(tmp_path: Path) -> None:
    listing = scan.list_directory(bytes(tmp_path / "gone"), b"")
    assert not listing.complete and listing.error == "No such file or directory"
    (walked,) = scan.walk(bytes(tmp_path / "gone"))
    assert not walked.complete and walked.gone


class _Entry:
    """As `os.scandir` gives them, where a disk is broken or a server does not know the kind of its entries."""

    def __init__(self, entry: os.DirEntry[bytes], broken: bytes) -> None:
        self.entry, self.name, self.broken = entry, entry.name, broken

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        if self.name == self.broken:
            raise OSError(errno.EIO, "Input/output error")
        return self.entry.is_dir(follow_symlinks=follow_symlinks)

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        return self.entry.stat(follow_symlinks=follow_symlinks)


@pytest.mark.parametrize("directory", [b"", b"box"])
def test_an_entry_that_cannot_be_looked_at_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: bytes
) -> None:
    for name in ("a.tif", "broken.tif", "c.tif", "deep/d.tif", "e.tmp"):
        _touch(tmp_path / os.fsdecode(directory) / name)
    real = os.scandir

    @contextlib.contextmanager
    def scandir(path: bytes) -> Iterator[Iterator[_Entry]]:
        with real(path) as entries:
            yield (_Entry(entry, b"broken.tif") for entry in entries)

    monkeypatch.setattr(os, "scandir", scandir)
    listing = scan.list_directory(bytes(tmp_path), directory)
    assert (listing.complete, listing.error) == (True, "")
    assert set(listing.files) == {os.path.join(directory, name) for name in (b"a.tif", b"c.tif")}
    assert listing.subdirectories == [os.path.join(directory, b"deep")]
    assert listing.blocked == {os.path.join(directory, b"broken.tif"): "EIO: Input/output error"}


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_folder_that_cannot_be_read_lets_nothing_be_concluded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(_path: bytes) -> None:
        raise error

    monkeypatch.setattr(os, "scandir", refuse)
    listing = scan.list_directory(bytes(tmp_path), b"a")
    assert (listing.complete, listing.error) == (False, f"{errno.errorcode[error.errno]}: {error.strerror}")


def test_a_link_on_the_way_leads_nowhere(tmp_path: Path) -> None:
    """A recorded folder may have been replaced by a link since: what is behind it is not in the root."""
    _touch(tmp_path / "outside" / "deep" / "secret.tif")
    root = tmp_path / "in"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "outside")
    assert scan.list_directory(bytes(root), b"a").files == {}
    assert scan.list_directory(bytes(root), b"a/deep").files == {}
    assert scan.list_directory(bytes(root), b"a/deep").complete
    by_link = tmp_path / "root-link"
    by_link.symlink_to(tmp_path / "outside")
    assert _files(by_link) == [b"deep/secret.tif"], "the root itself may be named by a link"


def test_a_huge_inode_number_fits_the_database() -> None:
    class Fake:
        st_ino, st_size, st_mtime_ns, st_ctime_ns = 2**64 - 1, 1, 2, 3

    stamp = Stamp.of(Fake())  # type: ignore[arg-type]
    assert stamp.inode == -1


def test_times_beyond_2262_fit_the_database() -> None:
    class Fake:
        st_ino, st_size, st_mtime_ns, st_ctime_ns = 1, 1, 10413792000000000000, -(2**63) - 1

    stamp = Stamp.of(Fake())  # type: ignore[arg-type]
    assert all(-(2**63) <= number < 2**63 for number in (stamp.mtime_ns, stamp.ctime_ns))
