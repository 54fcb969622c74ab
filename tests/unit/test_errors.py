"""The error tree is the truth: drawn as it is, every class in use, every exit code its own."""

import ast
import re
from pathlib import Path

import pytest

from worker import errors
from worker.errors import ExitCode, PhotochromError, Settles

ROOT = Path(__file__).parents[2]


def _all(cls: type[PhotochromError] = PhotochromError) -> list[type[PhotochromError]]:
    return [cls] + [below for sub in cls.__subclasses__() if sub.__module__ == "worker.errors" for below in _all(sub)]


def _drawn() -> dict[str, str]:
    """Class → base, as the module's docstring draws them: branches by ├─ and └─, siblings beside each other."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        names = re.findall(r"\b(?:[A-Z][a-z]+){2,}\b|\bJobMoved\b", re.split(r"\s{2,}[a-z]", line.split(": ")[0])[0])
        if not names:
            continue
        column = line.index(names[0])
        depth = 0 if column == 0 else column // 3
        above[depth:] = [names[0]]
        for name in names:
            if depth:
                parents[name] = above[depth - 1]
    return parents


def test_the_drawing_is_the_tree() -> None:
    assert _drawn() == {cls.__name__: cls.__bases__[0].__name__ for cls in _all() if cls is not PhotochromError}


def test_every_error_is_raised_or_handed_over_somewhere() -> None:
    made = set()
    for room in ("daemon", "worker"):
        for file in (ROOT / room).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                    made.add(node.func.id if isinstance(node.func, ast.Name) else node.func.attr)
    kinds = {cls.__name__ for cls in _all() if cls.__subclasses__()}  # a kind is caught, its members are raised
    assert {cls.__name__ for cls in _all()} - kinds - made == set()


def test_codes_are_unique_and_rules_known() -> None:
    codes = [cls.code for cls in _all()]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)
    assert all(isinstance(cls.settles, Settles) and isinstance(cls.exit_code, ExitCode) for cls in _all())


def test_every_error_says_what_it_is() -> None:
    assert all(cls.__doc__ for cls in _all())


def test_exit_codes_are_documented() -> None:
    readme = (ROOT / "README.md").read_text()
    if len(readme.splitlines()) < 20:
        pytest.skip("the README is not written yet")
    listed = re.search(r"^Exit codes: (.+?)(?:\n\n|\Z)", readme, re.MULTILINE | re.DOTALL)
    assert listed is not None, "the README lists the exit codes"
    meanings = dict(re.findall(r"(?:^|· )(\d+) ([^·]+)", listed[1].replace("\n", " ")))
    assert set(meanings) == {str(int(code)) for code in ExitCode}


def test_exit_codes_leave_the_shell_s_alone() -> None:
    assert ExitCode.OK == 0 and ExitCode.USAGE == 2
    assert len({int(code) for code in ExitCode}) == len(ExitCode) and max(ExitCode) < 64
