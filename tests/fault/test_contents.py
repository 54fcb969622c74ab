"""Bad, enormous and mislabelled files among good ones: each ends in one state that is explained, and harms no other."""

import time
from pathlib import Path

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from odd_files import make_all
from plant import ENDED, Plant, png, running, scan

from worker.jobs import PUBLISHED
from worker.tables import FileState, JobState, SourceFile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DONE, SKIPPED, QUARANTINED, IGNORED = JobState.DONE, JobState.SKIPPED, JobState.QUARANTINED, FileState.IGNORED
#: what becomes of each file of `odd_files.make_all`, and words of the sentence that says why
OUTCOMES: dict[str, tuple[JobState | FileState, str]] = {
    "empty.png": (QUARANTINED, "The file is empty"),
    "empty.dat": (IGNORED, "neither its name nor its first bytes"),
    "zeros.tif": (QUARANTINED, "holds only zeros"),
    "cut.jpg": (QUARANTINED, "The JPEG ends too early"),
    "cut.tif": (QUARANTINED, "The TIFF ends before its pixels do"),
    "loop.tif": (QUARANTINED, "The TIFF cannot be read"),
    "bomb-claims.png": (SKIPPED, "× 2147483647 px, more than the 1,000,000,000 allowed: raise max_megapixels"),
    "bomb-claims.tif": (SKIPPED, "claims 4294967295 × 4294967295 px"),
    "bomb-claims.jpg": (SKIPPED, "claims 65500 × 65500 px"),
    "bomb-inflates.png": (SKIPPED, "The picture is blank"),
    "bomb-strip.tif": (SKIPPED, "The picture is blank"),
    "bomb-zstd.tif": (QUARANTINED, "The TIFF cannot be decoded"),
    "cmyk.jpg": (SKIPPED, "The JPEG is cmyk"),
    "cmyk.tif": (SKIPPED, "The TIFF is cmyk"),
    "a png.jpg": (DONE, "__color.png"),
    "a jpeg.tif": (DONE, "__color.jpg"),
    "a tiff without a suffix": (DONE, "__color.tif"),
    "a text.tif": (SKIPPED, "is no picture that Photochrom knows"),
    "a text.txt": (IGNORED, "neither its name nor its first bytes"),
    "16 bits.png": (DONE, "__color.png"),
    "16 bits.tif": (DONE, "__color.tif"),
    "gib with a scan.tif": (DONE, "__color.tif"),
    "gib of black.tif": (SKIPPED, "The picture is blank"),
}
GOOD = 6
BEGINS = {DONE: "Done at", SKIPPED: "Skipped at", QUARANTINED: "Quarantined at", IGNORED: "Ignored since"}


def test_contents_of_every_kind(tmp_path: Path, cell: Cell) -> None:
    """All at once, with 512 MiB of memory for a scan; the colouring process lives through all of them."""
    with running(tmp_path, PHOTOCHROM_RETRY_S="1", PHOTOCHROM_JOB_MEMORY_MIB="512") as plant:
        (child,) = plant.coloring()
        made = plant.inbox / ".contents"
        made.mkdir()
        make_all(made)
        for number in range(GOOD):
            (made / f"good {number}.png").write_bytes(png(scan(920 + number)))
        outcomes = OUTCOMES | {f"good {number}.png": (DONE, "__color.png") for number in range(GOOD)}
        made.rename(plant.inbox / "contents")
        began, originals = time.time(), manifest(plant.inbox / "contents")
        taken = [name for name, (state, _) in outcomes.items() if state is not IGNORED]
        ended = plant.settle("contents", len(taken), 300)
        wait_for(lambda: all(state in set(FileState) - {FileState.SETTLING} for state in file_states(plant).values()),
                 60, "files that are none of ours are ignored")  # fmt: skip
        good_s = max(job.finished_at.timestamp() for job in plant.jobs("contents") if job.finished_at
                     and job.display_path.startswith("contents/good")) - began  # fmt: skip

        assert_invariants(plant, originals, "contents", states=PUBLISHED | {SKIPPED, QUARANTINED})
        assert_outcomes(plant, outcomes)
        assert plant.coloring() == [child], "a colouring process was lost"
    note = f"({len(outcomes)} files; the last good scan was done after {good_s:.0f} s, all after {ended - began:.0f} s)"
    cell.held("empty, cut, enormous, CMYK and mislabelled files among good scans", note)


def file_states(plant: Plant) -> dict[str, FileState]:
    with plant.database.reading() as session:
        return {row.display_path.removeprefix("contents/"): row.state for row in session.query(SourceFile)}


def assert_outcomes(plant: Plant, outcomes: dict[str, tuple[JobState | FileState, str]]) -> None:
    """Every file is in its state, and `why` says so in a sentence that is true."""
    jobs = {job.display_path.removeprefix("contents/"): job for job in plant.jobs("contents")}
    files = file_states(plant)
    assert files.keys() == outcomes.keys()
    wrong = []
    for name, (state, words) in outcomes.items():
        told = plant.installation.json("why", str(plant.inbox / "contents" / name))
        job = jobs.get(name)
        there = files[name] if job is None else job.state
        if there is not state or told["state"] != state or words not in told["sentence"] or not told[
                "sentence"].startswith(BEGINS[state]):  # fmt: skip
            wrong.append((name, there, told))
        if job is not None:
            assert job.state in ENDED
            assert job.lost == 0, f"{name} cost a worker"
            assert state is not DONE or (job.claim_no == 1 and str(job.output_sha256) in told["sentence"]), name
    assert wrong == []
