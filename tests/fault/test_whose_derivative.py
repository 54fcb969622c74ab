"""A derivative belongs to one scan: after two kills, and where two scans of the same bytes want one name."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from plant import Plant, png, scan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def derivatives(plant: Plant, folder: str) -> dict[str, str]:
    """Name and sha256 of each."""
    found = manifest(plant.output / folder)
    return {os.path.basename(path).decode(): entry[0] for path, entry in found.items() if not path.endswith(b".json")}


def test_killed_after_publishing_and_again_before(plant: Plant, cell: Cell) -> None:
    """The third attempt finds the file of the first, while the row knows that of the second already."""
    plant.arm("published", "kill")
    originals = plant.drop("twice", 1)
    plant.hit("published")
    plant.arm("intended", "kill")
    first = derivatives(plant, "twice")
    ended = plant.hit("intended")
    assert {name: sha for name, sha in derivatives(plant, "twice").items() if name.startswith("0__")} == first
    cell.recovered("SIGKILL of the colouring process: published, then intended", plant.settle("twice", 1) - ended)
    assert_invariants(plant, originals, "twice")
    assert list(derivatives(plant, "twice")) == ["0__color.png"]
    assert derivatives(plant, "twice") != first, "all attempts wrote the same bytes: nothing was tried"


def test_same_bytes_whose_derivatives_want_one_name(plant: Plant, cell: Cell) -> None:
    """`0` and `0.png`: each gets its own, and new content of one leaves the other's alone."""
    folder = plant.inbox / ".pair"
    folder.mkdir()
    for name in ("0", "0.png"):
        (folder / name).write_bytes(png(scan(771)))
    folder.rename(plant.inbox / "pair")
    plant.settle("pair", 2)
    assert_invariants(plant, manifest(plant.inbox / "pair"), "pair")
    for seed, name in ((772, "0.png"), (773, "0")):
        new = png(scan(seed))
        replace(plant.inbox / "pair" / name, new)
        began, sha = time.time(), hashlib.sha256(new).hexdigest()
        wait_for(lambda sha=sha: any(job.source_sha256 == sha for job in plant.jobs("pair")), 60, "it is taken anew")
        ended = plant.settle("pair", 2)
        assert_invariants(plant, manifest(plant.inbox / "pair"), "pair")
    cell.recovered("new content of one of two scans whose derivatives want one name", ended - began)


def replace(path: Path, data: bytes) -> None:
    new = path.with_name(".new")
    new.write_bytes(data)
    new.rename(path)
