"""Fixtures of the fault tests, and the table that a run of them writes."""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cells import CHECKED, RECOVERY_S, Cell
from plant import Plant, running

HEADER = """# Reliability: the fault matrix

Written by `make fault` with real processes, a real broker and a real database, at a settle time of 1 s. The
invariants of a row are those that its test asserted, over everything that the cell put into the watched folder: I1
compares the manifest of the source tree (bytes, names, times, modes, inodes) with the one taken when the scans were
put there; I2 the rows with the files, and that `why` tells each file's state; I3 the manifest of the output tree with
the rows, and that each derivative decodes; I4 that each job's history begins with its row, that each message that the
worker received was about a row, and that nothing temporary is left; I5 its moves, claims and leases; I6 is the time
from the end of the fault until the last affected scan had its derivative and its row, where the row says nothing else:
the promise is {limit:.0f} s.

"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability-table", type=Path, help="write the table of fault cells to this file")
    parser.addoption("--soak-minutes", type=float, default=2, help="how long parts are killed [default: 2]")
    parser.addoption("--soak-scans", type=int, default=150, help="how many scans come in that time [default: 150]")
    parser.addoption("--soak-seed", type=int, default=1, help="of the order of kills [default: 1]")


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Cell:
    """The row of the table that this test fills in."""
    made = Cell()
    request.node.stash[CELL] = made
    return made


CELL = pytest.StashKey[Cell]()
ROWS = pytest.StashKey[dict[str, dict[str, Any]]]()
RUN = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RUN] = f"{time.strftime('%Y-%m-%d', time.gmtime())} {_commit()}"


def _commit() -> str:
    """What is run; the tables that such runs write, in docs, do not make it another."""

    def git(*asked: str) -> str:
        told = subprocess.run(["git", *asked], cwd=Path(__file__).parent, capture_output=True, text=True)
        return told.stdout.strip()

    changed = "-dirty" if git("status", "--porcelain", "--", ":/", ":!/docs") else ""
    return f"{git('rev-parse', '--short=7', 'HEAD') or 'of no known commit'}{changed}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    CHECKED.clear()


def _span(names: set[str]) -> str:
    """`I1-I5` for what follows on one another, else each by name."""
    numbers = sorted(int(name[1:]) for name in names)
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"I{numbers[0]}-I{numbers[-1]}"
    return " ".join(f"I{number}" for number in numbers)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if "fault" in item.path.parts and (report.when == "call" or report.outcome != "passed"):
        made = item.stash.get(CELL, Cell())
        result = {"passed": "held", "failed": "**BROKEN**", "skipped": "not run:"}[report.outcome]
        note = str(report.longrepr[2]).removeprefix("Skipped: ") if report.skipped else made.note
        item.config.stash.setdefault(ROWS, {})[item.nodeid] = {
            "group": item.path.stem.removeprefix("test_"), "fault": made.fault or item.name,
            "invariants": _span(CHECKED), "result": f"{result} {note}".strip(), "recovery_s": made.recovery_s,
            "run": item.config.stash[RUN],
        }  # fmt: skip
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table; the cells of a part of the tests replace their own rows and leave the others."""
    target, cells = session.config.getoption("--reliability-table", None), session.config.stash.get(ROWS, {})
    if target is None or not cells:
        return
    data = target.with_suffix(".json")
    known = json.loads(data.read_text(encoding="utf-8")) if data.exists() else {}
    rows = dict(sorted({**known, **cells}.items(), key=lambda item: item[1]["group"]))
    lines = ["| group | fault | invariants | result | recovery (s) |", "|---|---|---|---|---|"]
    for row in rows.values():
        seconds = "" if row["recovery_s"] is None else f"{row['recovery_s']:.1f}"
        columns = (row["group"], row["fault"], row["invariants"], row["result"], seconds)
        lines.append("| " + " | ".join(column.replace("|", "/") for column in columns) + " |")
    times = sorted(row["recovery_s"] for row in rows.values() if row["recovery_s"] is not None)
    held = sum(row["result"].startswith("held") for row in rows.values())
    worst = f"; recovery: median {times[len(times) // 2]:.1f} s, longest {times[-1]:.1f} s" if times else ""
    runs = Counter(row["run"] for row in rows.values())
    told = ", ".join(f"{run} ({count} cells)" for run, count in sorted(runs.items()))
    lines.append(f"\n{held} of {len(rows)} cells held{worst}. Runs, by day and commit: {told}; {os.cpu_count()} cores.")
    target.parent.mkdir(exist_ok=True)
    data.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    target.write_text(HEADER.format(limit=RECOVERY_S) + "\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def _plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One running installation for most cells: each works in a folder of its own."""
    with running(tmp_path_factory.mktemp("plant")) as made:
        yield made


@pytest.fixture
def plant(_plant: Plant) -> Plant:
    """The installation, with nothing left in it of a cell that failed."""
    _plant.calm()
    return _plant
