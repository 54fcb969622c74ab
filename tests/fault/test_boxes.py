"""SIGKILL of the watcher while a box waits for a file that its manifest lists, and as it writes the box's report."""

import hashlib
import json
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from plant import Plant, cut_off, png, running, scan

from worker.jobs import PUBLISHED
from worker.names import is_temporary
from worker.tables import FileState, SourceFile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def settings(base: Path) -> dict[str, str]:
    """One root whose boxes come with a manifest."""
    root = {"path": str(base / "inbox"), "output": str(base / "output"), "batch": "manifest"}
    return {"PHOTOCHROM_ROOTS": json.dumps([root])}


def list_all(box: Path, **late: bytes) -> None:
    """Its manifest, as sha256sum writes it; `late`: what comes after it, by stems."""
    there = {path.name: path.read_bytes() for path in box.iterdir()}
    listed = there | {f"{stem}.png": content for stem, content in late.items()}
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(listed.items())]
    (box / "SHA256SUMS").write_text("".join(lines))


def waiting(plant: Plant) -> list[str]:
    """Why each file waits that does."""
    with plant.database.reading() as session:
        rows = session.scalars(sa.select(SourceFile).where(SourceFile.state == FileState.BLOCKED))
        return [row.reason for row in rows]


def wait_reported(folder: Path) -> float:
    """When both files of the report are there, complete or not (Unix time)."""
    both = [folder / "batch-report.json", folder / "batch-report.txt"]
    wait_for(lambda: all(path.exists() for path in both), 60, "the report")
    return max(path.stat().st_mtime for path in both)


def assert_report(plant: Plant, folder: str) -> None:
    """Counts and checksums are those of the rows and of the files on disk."""
    told = json.loads((plant.output / folder / "batch-report.json").read_bytes())
    jobs, base = plant.jobs(folder), plant.output
    assert told["counts"] == Counter(job.state for job in jobs) and told["files"] == len(jobs)
    assert [failure["path"] for failure in told["failures"]] == [
        job.display_path for job in jobs if job.state not in PUBLISHED
    ]
    assert {(item["source"], item["source_sha256"]) for item in told["derivatives"]} == {
        (job.display_path, hashlib.sha256((plant.inbox / job.display_path).read_bytes()).hexdigest()) for job in jobs
    }
    files = {(item["derivative"], item["derivative_sha256"]) for item in told["derivatives"]}
    assert files == {(name, hashlib.sha256((base / name).read_bytes()).hexdigest()) for name, _ in files}
    text = (plant.output / folder / "batch-report.txt").read_text()
    assert {tuple(line.split("  ")[::-1]) for line in text.split("\n\n")[1].splitlines()} == files


def reports(plant: Plant) -> int:
    """How many were written, by the watchers' own word."""
    return (plant.installation.state_dir / "logs" / "watch.log").read_text().count("batch_ended")


def test_watcher_killed_while_a_box_waits(tmp_path: Path, cell: Cell) -> None:
    late = png(scan(7))
    with running(tmp_path, **settings(tmp_path)) as plant:
        box = plant.inbox / "box"
        plant.drop("box", 3)
        list_all(box, late=late)
        wait_for(lambda: len(told := waiting(plant)) == 3 and all("missing: late.png." in why for why in told), 60,
                 "all wait for the file that is missing")  # fmt: skip
        assert plant.jobs() == []
        watcher = plant.part("watch")
        cut_off(watcher)
        ended = time.time()
        (box / "late.png").write_bytes(late)
        originals = manifest(box)
        plant.settle("box", 4)
        cell.recovered(
            "SIGKILL of the watcher while a box waits for a listed file", wait_reported(plant.output / "box") - ended
        )
        assert plant.part("watch") != watcher
        assert_invariants(plant, originals, "box")
        assert_report(plant, "box")
    assert reports(plant) == 1, "also the last round at SIGTERM wrote nothing"


@pytest.mark.parametrize("point", ["report_written", "report_half"])
def test_watcher_killed_as_it_writes_a_report(tmp_path: Path, cell: Cell, point: str) -> None:
    with running(tmp_path, **settings(tmp_path)) as plant:
        plant.arm(point, "kill")
        plant.drop("box", 2)
        list_all(plant.inbox / "box")
        originals = manifest(plant.inbox / "box")
        ended = plant.hit(point, 90)
        cell.recovered(
            f"SIGKILL of the watcher as it writes a box's report: {point}", wait_reported(plant.output / "box") - ended
        )
        assert_invariants(plant, originals, "box")
        assert_report(plant, "box")
    assert reports(plant) == 1
    assert [path for path in plant.output.rglob("*") if is_temporary(path.name.encode())] == []
