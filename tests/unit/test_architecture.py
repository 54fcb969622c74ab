"""What holds for the whole tree: names, sizes, one version, no addresses of package indexes."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from worker import queue

ROOT = Path(__file__).parents[2]
ROOMS = ("daemon", "worker", "model")
MAX_LINES = 300
#: split, so that this file does not name them itself
INDEXES = ["py" + "pi.org", "python" + "hosted.org", "files.python" + "hosted", "conda" + ".anaconda.org"]


def _modules() -> list[Path]:
    return sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))


def _tracked() -> list[Path]:
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True)
    if done.returncode != 0:
        pytest.skip("no git checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


@pytest.mark.parametrize("room", ROOMS)
def test_the_generic_names_are_ours_wherever_we_are_started(room: str) -> None:
    """`python-daemon` and others own such names; a current folder may hold a file of that name too."""
    program = f"import {room}; print({room}.__path__[0])"
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd="/", capture_output=True, text=True, timeout=60)
    assert Path(done.stdout.strip()) == ROOT / room, done.stderr


@pytest.mark.parametrize("file", _modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_can_be_read_at_one_sitting(file: Path) -> None:
    lines = len(file.read_text().splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: split it by what it is about"


def test_task_names_are_registered_tasks() -> None:
    """The daemon sends by name: a name that nobody listens to would be dropped without a word."""
    decorators = [
        keyword.value.attr
        for node in ast.walk(ast.parse((ROOT / "worker" / "tasks.py").read_text()))
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
        for keyword in decorator.keywords
        if keyword.arg == "name" and isinstance(keyword.value, ast.Attribute)
    ]
    names = {name for name, value in vars(queue).items() if isinstance(value, str) and value.startswith("photochrom.")}
    assert set(decorators) == names
    assert len(decorators) == len(set(decorators))


def test_tasks_decide_nothing() -> None:
    """A task parses its message and calls on; whatever it decided could not be tested without a worker."""
    for node in ast.walk(ast.parse((ROOT / "worker" / "tasks.py").read_text())):
        if isinstance(node, ast.FunctionDef) and any("task" in ast.unparse(part) for part in node.decorator_list[:1]):
            if ".connect" in ast.unparse(node.decorator_list[0]):
                continue  # a signal's handler
            work = [part for part in node.body[1:] if not isinstance(part, ast.ImportFrom)]
            assert 1 <= len(work) <= 2 and isinstance(work[-1], ast.Expr), f"{node.name}: a docstring and one call"
            assert not any(isinstance(part, ast.If | ast.For | ast.While | ast.Try) for part in ast.walk(node)), (
                node.name
            )


def test_the_changelog_s_top_version_is_the_project_s() -> None:
    changelog = ROOT / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("there is no changelog yet")
    top = re.search(r"^## \[?v?(\d+\.\d+\.\d+)", changelog.read_text(), re.MULTILINE)
    assert top is not None
    assert top[1] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_no_tracked_file_names_a_package_index() -> None:
    pattern = re.compile("|".join(map(re.escape, INDEXES)).encode())
    named = [
        str(file.relative_to(ROOT)) for file in _tracked()
        if file.is_file() and file.stat().st_size < 5 << 20 and pattern.search(file.read_bytes())
    ]  # fmt: skip
    assert named == []


def test_names_of_test_files_are_unique() -> None:
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_test_folder_is_collected_by_pytest() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["testpaths"] == [
        "tests"
    ]
