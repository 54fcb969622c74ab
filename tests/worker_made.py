"""A worker without the net: one process, one root, real files, a real record."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from worker import files, jobs, pipeline
from worker.db import Database, SchemaGuard
from worker.files import Stamp
from worker.settings import Settings
from worker.tables import FileState, Job, Root, RootState


class Flat:
    """The net's place: one colour everywhere; counts how often it was asked."""

    def __init__(self) -> None:
        self.device, self.asked = "CPU", 0
        self.version = SimpleNamespace(name="v1", weights_sha256="b" * 64)

    def chroma(self, light: np.ndarray, ratio: float | None = None) -> np.ndarray:
        self.asked += 1
        return np.full((8, 8, 2), 15, np.float32)


class Works:
    """A root below a folder, its record, and one worker."""

    def __init__(self, folder: Path, database: Database, **settings: Any) -> None:
        self.inbox, self.output, self.database = folder / "in", folder / "out", database
        for it in (self.inbox, self.output):
            it.mkdir(parents=True)
        chosen = Settings(inbox=self.inbox, output=self.output, state_dir=folder, review_chroma=0, **settings)
        self.net = Flat()
        serving: Any = SimpleNamespace(champion=lambda: self.net, named=lambda name: self.net)
        self.bench = pipeline.Bench(chosen, database, serving, "w:1", SchemaGuard(database))
        self.root = chosen.watched[0].key
        with database.writing() as session:
            session.add(Root(name=self.root, path=bytes(self.inbox), output=bytes(self.output), mode="scan", fs_type="",
                             identity="{}", files=0, state=RootState.ONLINE))  # fmt: skip

    def scan(self, name: str, seed: int = 1) -> int:
        """Drop a scan and record it as the watcher does; its job's id."""
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50)).astype(np.uint8)
        pixels = cv2.GaussianBlur(cv2.resize(pixels, (200, 160)), (0, 0), 3)
        data = cv2.imencode(".png", cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX))[1].tobytes()
        (self.inbox / name).write_bytes(data)
        return self.record(name)

    def record(self, name: str) -> int:
        """Record what lies in the inbox as the watcher does; its job's id."""
        path = self.inbox / name
        data = path.read_bytes()
        stamp = Stamp.of(path.stat())
        with self.database.writing() as session:
            if files.by_path(session, self.root, os.fsencode(name)) is None:
                files.found(session, self.root, os.fsencode(name), stamp)
                session.flush()
            row = files.by_path(session, self.root, os.fsencode(name))
            assert row is not None
            sha256 = hashlib.sha256(data).hexdigest()
            job, _ = jobs.submit(session, row, sha256, priority=3)
            files.put(session, row.id, FileState.SUBMITTED, "", stamp, sha256=sha256, job_id=job.id)
            return job.id

    def run(self, job_id: int) -> Job:
        """What a worker does with this job's message, and the row after it."""
        job = self.claim(job_id)
        if job is not None:
            pipeline._settle(self.bench, job)
        return self.row(job_id)

    def claim(self, job_id: int) -> Job | None:
        with self.database.writing() as session:
            return jobs.claim(session, job_id, worker="w:1", device="CPU", host="h", model_version="v1", lease_s=20)

    def row(self, job_id: int) -> Job:
        with self.database.reading() as session:
            return session.get_one(Job, job_id)

    def files(self) -> list[str]:
        return sorted(str(it.relative_to(self.output)) for it in self.output.rglob("*") if it.is_file())
