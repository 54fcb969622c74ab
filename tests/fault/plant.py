"""A running `photochrom up` to be broken: arm faults, kill parts, and afterwards hold it against the invariants."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import sqlalchemy as sa
from cells import RECOVERY_S
from installation import Installation, processes_of, wait_for
from manifests import Manifest, manifest

from daemon.broker import EmbeddedBroker
from worker.db import Database, migrate, open_database
from worker.tables import Job, JobState

ENDED = frozenset(JobState) - {JobState.QUEUED, JobState.RUNNING}


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
        forged: ids of jobs in messages that the test sent itself.
    """

    installation: Installation
    up: int
    database: Database
    faults: Path
    start: Callable[[], int] = os.getpid
    forged: set[int] = dataclasses.field(default_factory=set)

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

    def ends(self, folder: str) -> dict[int, tuple[object, ...]]:
        """How each of them ended; another attempt would change it."""
        return {job.id: (job.claim_no, job.output_sha256, job.finished_at) for job in self.jobs(folder)}

    def send_again(self, ids: list[int], times: int) -> None:
        """Messages that nobody should have sent."""
        self.forged |= {*ids}
        code = f"from worker import queue\nfor _ in range({times}):\n    for i in {ids}: queue.send(i, 3)"
        subprocess.run([sys.executable, "-c", code], env=self.installation.environ, cwd="/", check=True, timeout=60)

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
            jobs = self.jobs(folder)
            late = [(job.display_path, job.state, job.reason, job.claim_no, job.lost) for job in jobs
                    if job.state not in ENDED]  # fmt: skip
            told = f"{len(jobs)} are known, {len(late)} have not ended, the first of them {late[:20]}"
            raise AssertionError(f"{error}: {told}\n{self.words()}") from None
        return max(job.finished_at.timestamp() for job in self.jobs(folder) if job.finished_at)

    def log(self, part: str) -> str:
        """What a part has logged by now."""
        return (self.installation.state_dir / "logs" / f"{part}.log").read_text(errors="replace")

    def told(self, part: str, message: str, **fields: object) -> int:
        """How often a part's log has such a line by now."""
        lines = self.log(part).splitlines()
        found = [line for line in map(json.loads, (line for line in lines if line.startswith("{")))
                 if line["message"] == message and fields.items() <= line.items()]  # fmt: skip
        return len(found)

    def words(self) -> str:
        """The last lines of all logs."""
        logs = [*sorted((self.installation.state_dir / "logs").glob("*.log")), self.installation.base / "up.log"]
        return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                         for log in logs if log.exists())  # fmt: skip


def cut_off(pid: int) -> bool:
    """SIGKILL; whether there was anybody to hit."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


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
