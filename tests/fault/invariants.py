"""I1 to I5, asserted over everything below a folder of a plant's inbox; `Cell.recovered` asserts I6."""

import itertools
import json
import os
import re
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
import sqlalchemy as sa
from cells import CHECKED
from manifests import Manifest, manifest
from plant import Plant

from daemon import batch_report
from daemon.explain import why
from worker.jobs import ENTER_FROM, PUBLISHED
from worker.names import is_temporary
from worker.settings import Settings
from worker.tables import FileState, Job, JobEvent, JobState, SourceFile

#: in the worker's log, of a message that it has received
RECEIVED = re.compile(r'"name": "photochrom.colorize", "args": "\((\d+),')
#: most files that one comparison asks `why` about
ASKED = 200


def assert_invariants(
    plant: Plant, originals: Manifest, folder: str = "", *, states: Collection[JobState] = PUBLISHED
) -> None:
    """I1 to I5 over everything below a folder of the inbox.

    Args:
        plant: at rest, as far as this folder goes.
        originals: what the test put there.
        folder: below the inbox; empty for all of it.
        states: in which a job may have ended.
    """
    assert manifest(plant.inbox / folder) == originals, "I1: an original changed"
    CHECKED.add("I1")
    jobs = plant.jobs(folder)
    with plant.database.reading() as session:
        files = {row.path: row for row in session.scalars(sa.select(SourceFile))}
        events: dict[int, list[JobEvent]] = {}
        for event in session.scalars(sa.select(JobEvent).order_by(JobEvent.id)):
            events.setdefault(event.job_id, []).append(event)
        recorded = set(session.scalars(sa.select(Job.id)))

    by_path = {job.path: job for job in jobs}
    for path, (digest, *_) in originals.items():
        if not digest or os.path.basename(path).startswith(b"."):
            continue
        row = files.get(os.path.relpath(path, os.fsencode(plant.inbox)))
        assert row is not None, f"I2: {path!r} has no row"
        if row.state is FileState.IGNORED:
            continue
        assert row.state is FileState.SUBMITTED, f"I2: {path!r} is {row.state}: {row.reason}"
        job = by_path[row.path]
        assert job.id == row.job_id
        assert job.source_sha256 == digest, f"I2: {path!r} was recorded with other bytes"
        assert job.state in states, f"I2: {path!r} is {job.state}: {job.reason}"

    _assert_told(plant, [path for path, (digest, *_) in originals.items() if digest], by_path)
    CHECKED.add("I2")
    _assert_outputs(plant, jobs, folder)
    CHECKED.add("I3")
    assert all(events[job.id][0].state is JobState.QUEUED for job in jobs), "I4: work before its row"
    assert _sent(plant) - plant.forged <= recorded, "I4: a message whose job has no row"
    CHECKED.add("I4")
    _assert_moves(jobs, events)
    CHECKED.add("I5")


def _assert_told(plant: Plant, paths: list[bytes], jobs: dict[bytes, Job]) -> None:
    """I2: `why` tells each file's state (of up to `ASKED` of them)."""
    settings = Settings(state_dir=plant.installation.state_dir)
    with plant.database.reading() as session:
        for path in paths[:: 1 + len(paths) // ASKED]:
            said = why(session, settings, path)
            job = jobs.get(os.path.relpath(path, os.fsencode(plant.inbox)))
            state = job.state if job else FileState.IGNORED
            assert said.state == state and said.sentence.endswith("."), f"I2: {path!r} is {state}, why says {said}"


def _assert_outputs(plant: Plant, jobs: list[Job], folder: str) -> None:
    """I3 and I4: one decodable output per scan, as the row says, and nothing else."""
    expected: dict[bytes, str] = {}
    once: dict[str, int] = {}
    for job in jobs:
        if job.state not in PUBLISHED:
            continue
        assert job.output_path is not None and job.output_sha256 is not None
        path = os.path.join(os.fsencode(plant.output), job.output_path)
        assert path not in expected, "I3: two jobs have one output"
        expected[path] = job.output_sha256
        if job.state is not JobState.DUPLICATE:
            assert job.source_sha256 not in once, f"I3: the net ran twice for {job.display_path}"
            once[job.source_sha256] = job.id
    found = {path: digest for path, (digest, *_) in manifest(plant.output / folder).items()
             if digest and not os.path.basename(path).startswith(batch_report.NAME + b".")}  # fmt: skip
    left = [path for path in found if is_temporary(os.path.basename(path))]
    assert left == [], "I4: temporary files are left"
    there = {path: digest for path, digest in found.items() if not path.endswith(b".json")}
    told = {path: json.loads(Path(os.fsdecode(path)).read_bytes()) for path in found.keys() - there.keys()}
    assert {path: content["derivative"]["sha256"] for path, content in told.items()} == {
        path + b".json": digest for path, digest in there.items()
    }, "I3: the sidecars are not those of the outputs"
    assert there == expected, "I3: the outputs are not those of the rows"
    for path in expected:
        with open(path, "rb") as file:
            picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None and picture.ndim == 3, f"I3: {path!r} does not decode in colour"


def _sent(plant: Plant) -> set[int]:
    """The jobs of all messages that the worker has received, by its log."""
    log = plant.installation.state_dir / "logs" / "worker.log"
    return {int(number) for number in RECEIVED.findall(log.read_text(errors="replace"))} if log.exists() else set()


def _assert_moves(jobs: list[Job], events: dict[int, list[JobEvent]]) -> None:
    """I5: every move was an allowed one, one claim ended each job, and no lease is left."""
    for job in jobs:
        assert job.state not in {JobState.QUEUED, JobState.RUNNING}, f"I5: {job.display_path} is {job.state}"
        assert job.lease_until is None, f"I5: {job.display_path} still has a lease"
        moves = events[job.id]
        assert moves[-1].state is job.state
        for before, after in itertools.pairwise(moves):
            assert before.state in ENTER_FROM[after.state], f"I5: {before.state} to {after.state}"
            assert after.claim_no >= before.claim_no, "I5: claim_no fell"
        _assert_claims(moves)
        assert sum(move.state in PUBLISHED for move in moves) <= 1, f"I5: {job.display_path} was finished twice"


def _assert_claims(moves: list[JobEvent]) -> None:
    """I5: claims are 1 to n; where some are missing, those on both sides ended in waits for the same thing."""
    ends = [(move.claim_no, end) for move, end in itertools.pairwise(moves) if move.state is JobState.RUNNING]
    claims = [claim_no for claim_no, _ in ends]
    assert claims == sorted(set(claims)) and claims[:1] in ([], [1]), f"I5: claims {claims}"
    for (claim_no, end), (next_no, next_end) in itertools.pairwise(ends):
        waits = [it.note.partition(":")[0] for it in (end, next_end) if it.state is JobState.QUEUED]
        folded = len(waits) == 2 and waits[0] == waits[1] and waits[0].startswith("waits (")
        assert next_no == claim_no + 1 or folded, f"I5: claims {claims}"
