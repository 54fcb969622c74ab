"""The rules of `.photochromignore`, held against git's where git is installed."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon import ignoring, scan

RULES = (
    b"""
# comment
*.bak.png
/top.png
private/
box/inner.png
deep/**/x.png
**/any.png
tail/**
a?c.png
[xy].png
[!a-m]0.png
!keep.bak.png
\\#odd.png
class/[^a]1.png
class/[[:digit:]]2.png
class/[z-y]3.png
class/[\\]x]4.png
class/[]a5.png
class/[!]6.png
class/a[!b]7.png
two**stars.png
spaces%s
"""
    % b"  "
)
PATHS = (
    "a.png", "a.bak.png", "keep.bak.png", "sub/b.bak.png", "sub/keep.bak.png", "top.png", "sub/top.png",
    "private/a.png", "sub/private/a.png", "private.png", "box/inner.png",
    "sub/box/inner.png", "deep/x.png", "deep/1/2/x.png", "any.png",
    "p/q/any.png", "tail/a.png", "tail/b/c.png", "abc.png", "ac.png", "x.png", "z.png", "n0.png", "b0.png", "#odd.png",
    "spaces", "box/other.png", "sub/a.png", "class/a1.png", "class/b1.png", "class/12.png", "class/a2.png",
    "class/z3.png", "class/y3.png", "class/]4.png", "class/\\4.png", "class/[]a5.png", "class/a5.png", "class/!6.png",
    "class/a/7.png", "class/ac7.png", "two/stars.png", "two and stars.png",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path in PATHS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / ".photochromignore").write_bytes(RULES)
    (tmp_path / "sub" / ".photochromignore").write_bytes(b"!b.bak.png\n/a.png\n")
    return tmp_path


def ours(tree: Path) -> set[str]:
    return {path for path in PATHS if ignoring.by_file(os.fsencode(tree), path.encode())}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_rules_are_gits(tree: Path) -> None:
    for file in (".photochromignore", "sub/.photochromignore"):
        shutil.copy(tree / file, tree / file.replace(".photochromignore", ".gitignore"))
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    asked = subprocess.run(
        ["git", "-C", str(tree), "check-ignore", "--stdin", "-z"],
        input="\0".join(PATHS),
        capture_output=True,
        text=True,
    )
    assert ours(tree) == set(asked.stdout.split("\0")) - {""}


def test_a_listing_leaves_out_what_is_ignored(tree: Path) -> None:
    found = {path for listing in scan.walk(os.fsencode(tree)) for path in listing.files}
    assert found == {path.encode() for path in PATHS} - {path.encode() for path in ours(tree)}
    assert b"sub/b.bak.png" in found
    assert b"sub/a.png" not in found


def test_the_pattern_is_told(tree: Path) -> None:
    root = os.fsencode(tree)
    assert scan.ignored_path(b"private/a.png", root) == "private/"
    assert scan.ignored_path(b"sub/a.png", root) == "/a.png"
    assert scan.ignored_path(b"private", root, directory=True) == "private/"
    assert scan.ignored_path(b"a.png", root) is None
    assert scan.ignored_path(b".hidden.png", root) == ".*"


def test_what_is_no_ignore_file_says_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".photochromignore")
    assert ignoring.by_file(os.fsencode(tmp_path), b"a.png") is None
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".photochromignore").symlink_to("/etc/passwd")
    assert ignoring.by_file(os.fsencode(tmp_path), b"sub/a.png") is None


def test_names_of_any_bytes() -> None:
    (rule,) = ignoring.parse(b"\xff*.png")
    assert rule.fits.fullmatch(b"\xff\n.png")
    assert ignoring.parse(b"\n \n#x\n!\n/\n") == []


def test_a_line_that_makes_no_sense_fits_nothing_and_the_others_hold() -> None:
    """One slip of the pen must not end the watching of a folder."""
    lines = b"\xef\xbb\xbffirst.png\r\n[z-a].png\n[\n!\n/\n\\\n[[:nope:]]\nsecond.png"
    rules = ignoring.parse(lines)
    assert [rule.text for rule in rules if rule.fits.fullmatch(b"first.png")] == ["first.png"]
    assert [rule.text for rule in rules if rule.fits.fullmatch(b"second.png")] == ["second.png"]


@pytest.mark.parametrize(
    ("pattern", "path"),
    [(b"*a" * 12 + b"b", b"a" * 250), (b"**/a/" * 9 + b"b", b"a/" * 120 + b"a")],
)
def test_many_stars_take_no_time(pattern: bytes, path: bytes) -> None:
    """Tried at every place they would take longer than the limit that every test has."""
    (rule,) = ignoring.parse(pattern)
    assert not rule.fits.fullmatch(path)
    assert rule.fits.fullmatch(path + b"b" if b"**" not in pattern else path + b"/b")


def test_a_long_file_is_cut_at_a_line(tmp_path: Path) -> None:
    (tmp_path / ".photochromignore").write_bytes(b"#" * (ignoring.MAX_BYTES - 2) + b"\n*.bak\n")
    assert ignoring.by_file(os.fsencode(tmp_path), b"a.png") is None


def test_an_ignore_file_that_cannot_be_read_closes_its_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves alone is not known, and must not be coloured meanwhile."""
    opened, closed = os.open, os.fsencode(tree / "sub" / ".photochromignore")

    def refused(path: bytes, *arguments: int, **others: int) -> int:
        if path == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opened(path, *arguments, **others)

    monkeypatch.setattr(os, "open", refused)
    listing = scan.list_directory(os.fsencode(tree), b"sub")
    assert not listing.complete and listing.error == "EACCES: Permission denied (sub/.photochromignore)"
    assert listing.files == {}
    assert scan.list_directory(os.fsencode(tree), b"private").complete
    assert ignoring.by_file(os.fsencode(tree), b"sub/a.png") is None, "nobody knows"


def test_a_line_of_open_brackets_is_looked_at_once() -> None:
    """From each of them to the end of the line is minutes for 256 KiB, in which no thread of the watcher runs."""
    assert ignoring._part(b"[a" * 20_000) == rb"(?!)"
