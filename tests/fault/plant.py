"""A running `photochrom up` to be broken: arm faults, kill parts, and afterwards hold it against the invariants."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import sqlalchemy as sa
from cells import CHECKED, RECOVERY_S
from installation import Installation, processes_of, wait_for

from daemon.broker import EmbeddedBroker
from daemon.explain import why
from worker.db import Database, migrate, open_database
from worker.jobs import ENTER_FROM, PUBLISHED
from worker.names import is_temporary
from worker.settings import Settings
from worker.tables import FileState, Job, JobEvent, JobState, SourceFile

ENDED = frozenset(JobState) - {JobState.QUEUED, JobState.RUNNING}
Manifest = dict[bytes, tuple[str, int, int, int]]
#: most files that one comparison asks `why` about
ASKED = 200


def manifest(folder: Path) -> Manifest:
    """Every regular file below a folder: bytes, mtime, mode, inode; of anything else what it is."""
    return {
        path: entry(path)
        for directory, folders, names in os.walk(os.fsencode(folder))
        for path in (os.path.join(directory, name) for name in names + folders)
    }


def entry(path: bytes) -> tuple[str, int, int, int]:
    """What a manifest holds of one path."""
    status = os.lstat(path)
    digest = ""
    if os.path.isfile(path) and not os.path.islink(path):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, status.st_mtime_ns if digest else 0, status.st_mode, status.st_ino


def scan(seed: int, size_px: int = 48, bits: int = 8) -> np.ndarray:
    """A small gray picture unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 225, (5, 7)).astype(np.float32)
    smooth = cv2.resize(coarse, (size_px * 4 // 3, size_px), interpolation=cv2.INTER_CUBIC)
    smooth[size_px // 3 : size_px // 2, size_px // 2 : size_px * 3 // 4] -= 60  # an edge: without one it shows nothing
    eight = np.clip(smooth + rng.normal(0, 2, smooth.shape), 0, 255)
    return (eight * 257).astype(np.uint16) if bits == 16 else eight.astype(np.uint8)


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


@dataclasses.dataclass
class Plant:
    """One installation under fire.

    Attributes:
        installation: its folders.
        up: the process id of `photochrom up`.
        database: the record, opened by the test itself.
        faults: the folder in which points are armed.
        start: starts `photochrom up` and tells its process id.
    """

    installation: Installation
    up: int
    database: Database
    faults: Path
    start: Callable[[], int] = os.getpid

    def up_again(self) -> None:
        """Start the supervisor that was killed once more, when nothing of it is left."""
        wait_for(lambda: not processes_of(self.installation.state_dir), 30, "nothing is left behind")
        self.up = self.start()

    @property
    def inbox(self) -> Path:
        return self.installation.inbox

    @property
    def output(self) -> Path:
        return self.installation.output

    def arm(self, point: str, action: str) -> None:
        """The next process that comes to the point does this."""
        ready = self.faults / f".{point}"
        ready.write_text(action)
        ready.rename(self.faults / point)

    def calm(self) -> None:
        """Disarm everything and let what is stopped go on."""
        for file in self.faults.iterdir():
            file.unlink()
        for pid in processes_of(self.installation.state_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def hit(self, point: str, timeout_s: float = 60) -> float:
        """Wait until a process has come to the point; when that was (Unix time)."""
        done = self.faults / f"{point}.hit"
        wait_for(done.exists, timeout_s, f"{point} is reached")
        at = done.stat().st_ctime
        done.unlink()
        return at

    def part(self, verb: str) -> int:
        """The process id of `watch`, `worker` or `beat`."""
        return wait_for(lambda: self._part(verb), 30, f"{verb} runs")

    def _part(self, verb: str) -> int:
        return next((pid for pid in children_of(self.up) if f"daemon.cli {verb}" in command_line(pid)), 0)

    def child(self) -> int:
        """The colouring process."""
        return wait_for(lambda: next(iter(self.coloring()), 0), 60, "a colouring process runs")

    def coloring(self) -> list[int]:
        return [pid for pid in children_of(self._part("worker")) if "spawn_main" in command_line(pid)]

    def broker(self) -> int:
        return int((self.installation.state_dir / "broker" / "valkey.pid").read_text())

    def drop(self, folder: str, count: int = 1, *, size_px: int = 48, bits: int = 8) -> Manifest:
        """New scans in a new folder of the inbox, put there at once; the manifest of them all."""
        made = self.inbox / f".{folder}"  # hidden, and on the same file system
        made.mkdir()
        for number in range(count):
            seed = int.from_bytes(hashlib.sha256(f"{folder}/{number}".encode()).digest()[:4])
            (made / f"{number}.png").write_bytes(png(scan(seed, size_px, bits)))
        target = self.inbox / folder
        made.rename(target)
        return manifest(target)

    def jobs(self, folder: str = "") -> list[Job]:
        """The live jobs of the scans below a folder."""
        start = f"{folder}/".encode() if folder else b""
        with self.database.reading() as session:
            rows = session.scalars(sa.select(Job).where(Job.state != JobState.SUPERSEDED).order_by(Job.id)).all()
        return [job for job in rows if job.path.startswith(start)]

    def wait_jobs(self, folder: str, count: int, timeout_s: float = 30) -> list[Job]:
        return wait_for(
            lambda: (found := self.jobs(folder)) if len(self.jobs(folder)) >= count else None, timeout_s, "jobs"
        )

    def wait_state(self, folder: str, state: JobState, timeout_s: float = 60) -> Job:
        return wait_for(lambda: next((job for job in self.jobs(folder) if job.state is state), None), timeout_s, state)

    def settle(self, folder: str, count: int, timeout_s: float = RECOVERY_S) -> float:
        """Wait until that many scans of a folder have ended; when the last did (Unix time)."""

        def ended() -> bool:
            jobs = self.jobs(folder)
            return len(jobs) >= count and all(job.state in ENDED for job in jobs)

        try:
            wait_for(ended, timeout_s, f"{count} scans of {folder} have ended")
        except AssertionError as error:
            seen = [(job.display_path, job.state, job.reason, job.claim_no, job.lost) for job in self.jobs(folder)]
            raise AssertionError(f"{error}: {seen}\n{self.words()}") from None
        return max(job.finished_at.timestamp() for job in self.jobs(folder) if job.finished_at)

    def words(self) -> str:
        """The last lines of all logs."""
        logs = [*sorted((self.installation.state_dir / "logs").glob("*.log")), self.installation.base / "up.log"]
        return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                         for log in logs if log.exists())  # fmt: skip


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
        superseded = {job.id for job in session.scalars(sa.select(Job).where(Job.state == JobState.SUPERSEDED))}

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
    CHECKED.add("I4")
    _assert_moves(jobs, events, superseded)
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
    found = {path: digest for path, (digest, *_) in manifest(plant.output / folder).items() if digest}
    there = {path: digest for path, digest in found.items() if not path.endswith(b".json")}
    told = {path: json.loads(Path(os.fsdecode(path)).read_bytes()) for path in found.keys() - there.keys()}
    assert {path: content["derivative"]["sha256"] for path, content in told.items()} == {
        path + b".json": digest for path, digest in there.items()
    }, "I3: the sidecars are not those of the outputs"
    left = [path for path in there if is_temporary(os.path.basename(path))]
    assert left == [], "I4: temporary files are left"
    assert there == expected, "I3: the outputs are not those of the rows"
    for path in expected:
        with open(path, "rb") as file:
            picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None and picture.ndim == 3, f"I3: {path!r} does not decode in colour"


def _assert_moves(jobs: list[Job], events: dict[int, list[JobEvent]], superseded: set[int]) -> None:
    """I5: every move was an allowed one, one claim ended each job, and no lease is left."""
    for job in jobs:
        assert job.state not in {JobState.QUEUED, JobState.RUNNING}, f"I5: {job.display_path} is {job.state}"
        assert job.lease_until is None, f"I5: {job.display_path} still has a lease"
        moves = events[job.id]
        assert moves[-1].state is job.state
        for before, after in itertools.pairwise(moves):
            assert before.state in ENTER_FROM[after.state], f"I5: {before.state} to {after.state}"
            assert after.claim_no >= before.claim_no, "I5: claim_no fell"
        claims = [move.claim_no for move in moves if move.state is JobState.RUNNING]
        assert claims == list(range(1, len(claims) + 1)), f"I5: claims {claims}"
        assert sum(move.state in PUBLISHED for move in moves) <= 1, f"I5: {job.display_path} was finished twice"
    assert not superseded & {job.id for job in jobs}


def cut_off(pid: int) -> None:
    """SIGKILL, without a complaint when it is gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(base: Path, prefix: Sequence[str] = (), **environ: str) -> Iterator[Plant]:
    """A plant with its first colouring process warm; afterwards SIGTERM, and nothing may be left."""
    with starting(base, prefix, **environ) as plant:
        yield plant
        os.kill(plant.up, signal.SIGTERM)
        wait_for(lambda: not processes_of(plant.installation.state_dir), 15, "all processes have ended after SIGTERM")


@contextlib.contextmanager
def starting(base: Path, prefix: Sequence[str] = (), **environ: str) -> Iterator[Plant]:
    """The same, for tests that kill the supervisor themselves."""
    installation = Installation(base, prefix=tuple(prefix))
    faults, logs = base / "faults", installation.state_dir / "logs"
    for folder in (installation.inbox, faults, logs):
        folder.mkdir(parents=True, exist_ok=True)
    (logs / "worker.log").unlink(missing_ok=True)
    folders = ("--inbox", str(installation.inbox), "--output", str(installation.output))
    command = installation.command("up", *(() if "PHOTOCHROM_ROOTS" in environ else folders))
    settings = installation.environ | {"PHOTOCHROM_FAULT": str(faults)} | environ
    started: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        with (base / "up.log").open("ab") as out:
            started.append(subprocess.Popen(command, env=settings, cwd=base, stdout=out, stderr=out))
        return started[-1].pid

    up = start()
    try:
        wait_for(lambda: started[0].poll() is not None or _is_warm(logs / "worker.log"), 100, "the worker is warm")
        assert started[0].poll() is None, (base / "up.log").read_text()
        url = environ.get("PHOTOCHROM_DATABASE_URL") or f"sqlite:///{installation.state_dir / 'photochrom.db'}"
        database = open_database(url)
        try:
            yield Plant(installation, up, database, faults, start)
        finally:
            database.dispose()
    finally:
        for pid in processes_of(installation.state_dir):
            cut_off(pid)
        for process in started:
            process.wait()


def _is_warm(log: Path) -> bool:
    return log.exists() and "worker_ready" in log.read_text(errors="replace")


@contextlib.contextmanager
def parts(database_url: str = "", **environs: Mapping[str, str]) -> Iterator[Plant]:
    """A watcher and a worker on their own, without a broker; `watch` and `worker`: more environment for each."""
    base = Path(tempfile.mkdtemp(prefix="photochrom-parts-"))
    installation = Installation(base)
    for folder in (installation.inbox, installation.output, installation.state_dir / "logs", base / "faults"):
        folder.mkdir(parents=True)
    url = database_url or f"sqlite:///{installation.state_dir / 'photochrom.db'}"
    migrate(url)
    environ = installation.environ | {
        "PHOTOCHROM_INBOX": str(installation.inbox), "PHOTOCHROM_OUTPUT": str(installation.output),
        "PHOTOCHROM_FAULT": str(base / "faults"), "PHOTOCHROM_DATABASE_URL": url, "PYTHONSAFEPATH": "1",
    }  # fmt: skip
    started = []
    for verb in ("watch", "worker"):
        with (installation.state_dir / "logs" / f"{verb}.log").open("wb") as log:
            more = {**environ, **environs.get(verb, {})}
            started.append(subprocess.Popen(installation.command(verb), env=more, cwd=base, stdout=log, stderr=log))
    database = open_database(url)
    try:
        yield Plant(installation, os.getpid(), database, base / "faults")
    finally:
        for process in started:
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        database.dispose()
        for pid in processes_of(installation.state_dir):
            cut_off(pid)
        shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def broker_of(plant: Plant) -> Iterator[None]:
    """The embedded broker of an installation whose parts run on their own."""
    broker = EmbeddedBroker(plant.installation.state_dir)
    broker.start()
    try:
        yield
    finally:
        broker.stop()
