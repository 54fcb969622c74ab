"""Wall clocks that are hours apart, that step while a job waits or is worked on, and a change to summer time."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from plant import Plant, broker_of, parts, running

from worker.settings import broker_socket
from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: from the start of the plant that sees it: long enough to have a job in hand by then
SUMMER_IN_S = 100


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is preloaded for a wrong clock."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler for a clock that is wrong")
    built = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(built), str(source), "-ldl"], check=True)
    return built


class Clock:
    """The wall clock of one plant, database and broker included."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.offset_s = 0
        file.write_bytes(struct.pack("q", 0))

    def step(self, seconds: int) -> None:
        """From now on it shows so much more, or less."""
        self.offset_s += seconds
        with self.file.open("r+b") as file:
            file.write(struct.pack("q", self.offset_s))


@pytest.fixture(scope="module")
def _stepping(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plant, Clock]]:
    base = tmp_path_factory.mktemp("plant")
    clock = Clock(base / "offset")
    with running(base, LD_PRELOAD=str(library), CLOCK_OFFSET_FILE=str(clock.file)) as plant:
        yield plant, clock


@pytest.fixture
def stepping(_stepping: tuple[Plant, Clock]) -> tuple[Plant, Clock]:
    """A plant all of whose processes share a clock that the test can step; nothing is left of a cell that failed."""
    _stepping[0].calm()
    return _stepping


@pytest.mark.parametrize("step_s", [7200, -7200])
def test_step_while_a_job_waits(stepping: tuple[Plant, Clock], cell: Cell, step_s: int) -> None:
    """It waits by `not_before`, a time of the database's clock."""
    plant, clock = stepping
    folder = f"waits{step_s}"
    plant.arm("reading", "raise EIO")
    originals = plant.drop(folder, 2)
    plant.hit("reading")
    wait_for(lambda: any(job.not_before and job.state is JobState.QUEUED for job in plant.jobs(folder)), 30, "it waits")
    clock.step(step_s)
    began = time.time()
    plant.settle(folder, 2)
    cell.recovered(f"clock of the host steps {step_s // 3600:+d} h while a job waits for its time", time.time() - began)
    assert_invariants(plant, originals, folder)
    assert {(job.failures, job.lost) for job in plant.jobs(folder)} == {(0, 0)}


@pytest.mark.parametrize("step_s", [7200, -7200])
def test_step_while_a_job_is_under_lease(stepping: tuple[Plant, Clock], cell: Cell, step_s: int) -> None:
    """Its process is stopped until the claim was taken back: a zombie with a lease of the other time."""
    plant, clock = stepping
    folder = f"lease{step_s}"
    plant.arm("intended", "stop")
    originals = plant.drop(folder, 2)
    plant.hit("intended")
    held = plant.wait_state(folder, JobState.RUNNING).id
    (child,) = plant.coloring()
    clock.step(step_s)
    began = time.time()
    wait_for(lambda: any(job.id == held and job.lost for job in plant.jobs(folder) if job.state is JobState.QUEUED),
             60, "the claim is taken back")  # fmt: skip
    os.kill(child, signal.SIGCONT)
    plant.settle(folder, 2)
    cell.recovered(f"clock of the host steps {step_s // 3600:+d} h during a lease", time.time() - began)
    assert_invariants(plant, originals, folder)
    assert next(job.claim_no for job in plant.jobs(folder) if job.id == held) == 2


@pytest.mark.parametrize("step_s", [7200, -7200])
def test_step_while_messages_are_lost(stepping: tuple[Plant, Clock], cell: Cell, step_s: int) -> None:
    """The broker dies with the messages, and the rows say that they were sent in another time."""
    plant, clock = stepping
    folder = f"lost{step_s}"
    os.kill(plant.part("worker"), signal.SIGSTOP)
    originals = plant.drop(folder, 3)
    jobs = plant.wait_jobs(folder, 3)
    wait_for(lambda: all(job.dispatched_at for job in plant.jobs(folder)), 30, "all are dispatched")
    clock.step(step_s)
    redis.Redis(unix_socket_path=str(broker_socket(plant.installation.state_dir)), socket_timeout=5).flushall()
    os.kill(plant.part("worker"), signal.SIGCONT)
    began = time.time()
    plant.settle(folder, len(jobs))
    cell.recovered(f"clock of the host steps {step_s // 3600:+d} h, all messages are lost", time.time() - began)
    assert_invariants(plant, originals, folder)


def test_message_replayed_a_day_later(stepping: tuple[Plant, Clock], cell: Cell) -> None:
    plant, clock = stepping
    originals = plant.drop("yesterday", 2)
    plant.settle("yesterday", 2)
    before = plant.ends("yesterday")
    clock.step(24 * 3600)
    plant.send_again([*before], 2)
    more = plant.drop("today", 1)  # behind them in the queue
    plant.settle("today", 1)
    assert plant.ends("yesterday") == before
    assert_invariants(plant, originals, "yesterday")
    assert_invariants(plant, more, "today")
    cell.held("messages of finished jobs replayed a day later")


@pytest.mark.parametrize("offset_s", [7200, -7200])
def test_clocks_apart(library: Path, postgresql_url: str, cell: Cell, offset_s: int) -> None:
    """The worker's host and the watcher's are four hours apart, the database's between them."""
    wrong = {"LD_PRELOAD": str(library)}
    worker, watch = wrong | {"CLOCK_OFFSET_S": str(offset_s)}, wrong | {"CLOCK_OFFSET_S": str(-offset_s)}
    with parts(postgresql_url, worker=worker, watch=watch) as plant, broker_of(plant):
        log = plant.installation.state_dir / "logs" / "worker.log"
        wait_for(lambda: "worker_ready" in log.read_text(), 90, "the worker is warm")
        plant.arm("inference", "kill")
        originals = plant.drop("clocks", 3)
        began = plant.hit("inference")
        ended = plant.settle("clocks", 3)
        assert_invariants(plant, originals, "clocks")
        assert max(job.lost for job in plant.jobs("clocks")) == 1
        assert {job.state for job in plant.jobs("clocks")} == {JobState.DONE}
    cell.recovered(
        f"worker's clock {offset_s // 3600:+d} h, watcher's {-offset_s // 3600:+d} h, a killed job", ended - began
    )


@pytest.mark.parametrize("what", ["begins", "ends"])
def test_summer_time(tmp_path: Path, cell: Cell, what: str) -> None:
    """The zone's clock goes an hour forward, or back, while a job is held; leases and pauses are in UTC."""
    at = time.gmtime(changes := int(time.time()) + SUMMER_IN_S)
    # the rule names the day of the year from 0 and the time by the clock that is in force until then
    when = f"{at.tm_yday - 1}/{at.tm_hour + (what == 'ends')}:{at.tm_min:02}:{at.tm_sec:02}"
    another = (at.tm_yday + 100) % 365
    zone = f"WIN0SUM,{when},{another}" if what == "begins" else f"WIN0SUM,{another},{when}"
    with running(tmp_path, TZ=zone) as plant:
        plant.arm("inference", "stop")
        originals = plant.drop("summer", 2)
        plant.hit("inference")
        (child,) = plant.coloring()
        if summer(zone) != (what == "ends"):
            pytest.skip("this machine was too slow to have a job in hand when the clocks were changed")
        wait_for(lambda: time.time() > changes + 1, SUMMER_IN_S, "the clocks were changed")
        assert summer(zone) == (what == "begins")
        os.kill(child, signal.SIGCONT)
        ended = time.time()
        cell.recovered(f"summer time {what} while a job is held", plant.settle("summer", 2) - ended)
        assert_invariants(plant, originals, "summer")


def summer(zone: str) -> bool:
    """Whether it is summer time in a zone now."""
    code = "import time; print(time.localtime().tm_isdst)"
    asked = subprocess.run([sys.executable, "-c", code], env={"TZ": zone}, capture_output=True, text=True, check=True)
    return asked.stdout.strip() == "1"
