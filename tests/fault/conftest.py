"""Fixtures of the fault tests, and the table that a run of them writes."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cells import RECOVERY_S, Cell
from plant import Plant, running

HEADER = """# Reliability: the fault matrix

Written by `make fault` from one run with real processes, a real broker and a real database; every cell compares full
manifests of the source tree, the output tree and the rows. Recovery is the time from the end of the fault until the
last affected scan had its derivative and its row; the promise is {limit:.0f} s. I1 to I6 are explained in the README.

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
ROWS = pytest.StashKey[list[tuple[str, str, str, str, str]]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if "fault" in item.path.parts and (report.when == "call" or report.outcome != "passed"):
        made = item.stash.get(CELL, Cell())
        result = {"passed": "held", "failed": "**BROKEN**", "skipped": "not run"}[report.outcome]
        why = str(report.longrepr[2]).removeprefix("Skipped: ") if report.skipped else made.note
        seconds = "" if made.recovery_s is None else f"{made.recovery_s:.1f}"
        marker = item.get_closest_marker("invariants")
        invariants = marker.args[0] if marker else "I1-I6"
        rows = item.config.stash.setdefault(ROWS, [])
        rows.append((item.path.stem[5:], made.fault or item.name, invariants, f"{result} {why}".strip(), seconds))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    target, rows = session.config.getoption("--reliability-table", None), session.config.stash.get(ROWS, [])
    if target is None or not rows:
        return
    lines = ["| group | fault | invariants | result | recovery (s) |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(text.replace("|", "/") for text in row) + " |" for row in rows]
    held = sum(row[3].startswith("held") for row in rows)
    times = sorted(float(row[4]) for row in rows if row[4])
    worst = f", recovery median {times[len(times) // 2]:.1f} s, longest {times[-1]:.1f} s" if times else ""
    lines.append(f"\n{held} of {len(rows)} cells held{worst}. Run of {time.strftime('%Y-%m-%d', time.gmtime())}.")
    target.parent.mkdir(exist_ok=True)
    target.write_text(HEADER.format(limit=RECOVERY_S) + "\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """One running installation for most cells: each works in a folder of its own."""
    with running(tmp_path_factory.mktemp("plant")) as made:
        yield made
