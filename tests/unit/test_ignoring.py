"""The rules of `.photochromignore`, held against git's where git is installed."""

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
spaces%s
"""
    % b"  "
)
PATHS = (
    "a.png", "a.bak.png", "keep.bak.png", "sub/b.bak.png", "sub/keep.bak.png", "top.png", "sub/top.png",
    "private/a.png", "sub/private/a.png", "private.png", "box/inner.png",
    "sub/box/inner.png", "deep/x.png", "deep/1/2/x.png", "any.png",
    "p/q/any.png", "tail/a.png", "tail/b/c.png", "abc.png", "ac.png", "x.png", "z.png", "n0.png", "b0.png", "#odd.png",
    "spaces", "box/other.png", "sub/a.png",
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
