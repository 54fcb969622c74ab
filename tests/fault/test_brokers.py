"""The broker may lose, repeat, delay or refuse everything: the rows are the truth."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection

import pytest
import redis
from cells import Cell
from installation import wait_for
from invariants import RECEIVED, assert_invariants
from manifests import Manifest
from plant import Plant, broker_of, cut_off, parts

from worker.settings import broker_socket
from worker.tables import JobState

pytestmark = pytest.mark.timeout(300)


def client(plant: Plant) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(broker_socket(plant.installation.state_dir)), socket_timeout=5)


def queued(plant: Plant, folder: str, count: int) -> None:
    """Wait until all have rows and their messages are out."""
    wait_for(lambda: len(jobs := plant.jobs(folder)) == count and all(
        job.dispatched_at or job.state is not JobState.QUEUED for job in jobs), 30, "all are dispatched")  # fmt: skip


def full_queue(plant: Plant, folder: str) -> tuple[Manifest, int]:
    """Eight scans, of which the colouring process holds the first: their manifest, and that process."""
    plant.arm("claimed", "stop")
    originals = plant.drop(folder, 8)
    plant.hit("claimed")
    queued(plant, folder, 8)
    broker = client(plant)
    lists = [key for key in broker.keys("photochrom:colorize*") if broker.type(key) == b"list"]
    assert sum(broker.llen(key) for key in lists) >= 5, "there are no messages to lose"
    return originals, plant.child()


def test_flushall(plant: Plant, cell: Cell) -> None:
    originals, child = full_queue(plant, "flush")
    client(plant).flushall()
    os.kill(child, signal.SIGCONT)
    ended = time.time()
    cell.recovered("FLUSHALL with a full queue", plant.settle("flush", 8) - ended)
    assert_invariants(plant, originals, "flush")


def test_message_lost(plant: Plant, cell: Cell) -> None:
    """As when a worker dies between taking a message and noting that it has it (kombu's BRPOP window)."""
    os.kill(plant.part("worker"), signal.SIGSTOP)
    originals = plant.drop("lost", 3)
    queued(plant, "lost", 3)
    lists = [key for key in client(plant).keys("photochrom:colorize*") if client(plant).type(key) == b"list"]
    taken = sum(client(plant).rpop(key) is not None for key in lists for _ in range(2))
    os.kill(plant.part("worker"), signal.SIGCONT)
    ended = time.time()
    assert taken, "no message was there to lose"
    cell.recovered("messages lost in the BRPOP window", plant.settle("lost", 3) - ended)
    assert_invariants(plant, originals, "lost")


def test_message_duplicated(plant: Plant, cell: Cell) -> None:
    plant.arm("claimed", "stop")
    originals = plant.drop("five", 3)
    plant.hit("claimed")
    child = plant.coloring()[0]
    plant.send_again([job.id for job in plant.jobs("five")], 5)
    os.kill(child, signal.SIGCONT)
    ended = time.time()
    cell.recovered("every message delivered six times", plant.settle("five", 3) - ended)
    assert_invariants(plant, originals, "five")
    assert {job.claim_no for job in plant.jobs("five")} == {1}


#: a message of the right task whose body does what it likes when it is unpickled
PICKLED = """
import os, sys
from worker import queue

class Body:
    def __reduce__(self):
        return os.system, (f"touch {sys.argv[1]}",)

for _ in range(3):
    queue.app.send_task(queue.COLORIZE, (Body(),), serializer="pickle", argsrepr="")
"""


def test_message_pickled(plant: Plant, cell: Cell) -> None:
    """It is refused by its content type, unread, and neither kills the worker nor holds up what comes behind it."""
    os.kill(worker := plant.part("worker"), signal.SIGSTOP)
    made = plant.installation.base / "unpickled"
    environ = plant.installation.environ
    subprocess.run([sys.executable, "-c", PICKLED, made], env=environ, cwd="/", check=True, timeout=60)
    originals = plant.drop("pickled", 3)
    queued(plant, "pickled", 3)
    os.kill(worker, signal.SIGCONT)
    ended = time.time()
    cell.recovered("pickled messages before three scans: refused", plant.settle("pickled", 3) - ended)
    assert_invariants(plant, originals, "pickled")
    wait_for(lambda: (plant.installation.state_dir / "logs" / "worker.log").read_text().count("ContentDisallowed") >= 3,
             20, "all were refused")  # fmt: skip
    assert not made.exists(), "a message was unpickled"
    assert plant.part("worker") == worker
    assert {job.claim_no for job in plant.jobs("pickled")} == {1}


def told_of(plant: Plant, ids: Collection[int]) -> int:
    """How many messages about these jobs the worker has received, by its log."""
    log = plant.installation.state_dir / "logs" / "worker.log"
    return sum(int(number) in ids for number in RECEIVED.findall(log.read_text(errors="replace")))


@pytest.mark.slow
def test_stale_message_replayed(plant: Plant, cell: Cell) -> None:
    originals = plant.drop("stale", 2)
    plant.settle("stale", 2)
    before = plant.ends("stale")
    received = told_of(plant, before)
    plant.send_again([*before, 10**9, -1], 2)
    more = plant.drop("after-stale", 1)  # behind them in the queue
    plant.settle("after-stale", 1)
    assert told_of(plant, before) == received + 2 * len(before), "a message did not come to the worker"
    assert plant.ends("stale") == before
    assert_invariants(plant, originals, "stale")
    assert_invariants(plant, more, "after-stale")
    cell.held("messages of finished and of unknown jobs replayed")


@pytest.mark.slow
def test_broker_killed(plant: Plant, cell: Cell) -> None:
    originals, child = full_queue(plant, "broker")
    ended = time.time()
    os.kill(plant.broker(), signal.SIGKILL)
    os.kill(child, signal.SIGCONT)
    cell.recovered("SIGKILL of the broker with a full queue", plant.settle("broker", 8) - ended)
    assert_invariants(plant, originals, "broker")


@pytest.mark.slow
def test_broker_killed_while_a_job_is_held(plant: Plant, cell: Cell) -> None:
    """The job ends while no broker is there to acknowledge its message to."""
    plant.arm("claimed", "stop")
    originals = plant.drop("held", 3)
    plant.hit("claimed")
    (child,) = plant.coloring()
    queued(plant, "held", 3)
    assert client(plant).hlen("photochrom:unacked"), "every message was acknowledged already"
    cut_off(plant.broker())
    os.kill(child, signal.SIGCONT)
    ended = time.time()
    fault = "SIGKILL of the broker while a job is held, its message not acknowledged"
    cell.recovered(fault, plant.settle("held", 3) - ended)
    assert_invariants(plant, originals, "held")
    assert {job.claim_no for job in plant.jobs("held")} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("state", ["away", "back"])
def test_broker_killed_before_messages_are_sent(plant: Plant, cell: Cell, state: str) -> None:
    """The dispatcher has noted them as sent; when it goes on the broker is still away, or back already."""
    folder, log = f"unsent-{state}", plant.installation.state_dir / "logs" / "watch.log"
    plant.arm("marked", "stop")
    originals = plant.drop(folder, 3)
    plant.hit("marked")
    watcher, before, told = plant.part("watch"), plant.broker(), log.read_text().count("broker_down")
    if state == "away":
        os.kill(plant.up, signal.SIGSTOP)  # who would start another one
    cut_off(before)
    try:
        if state == "back":
            wait_for(lambda: plant.broker() != before and _answers(plant), 30, "the broker is back")
        os.kill(watcher, signal.SIGCONT)
        if state == "away":
            wait_for(lambda: log.read_text().count("broker_down") > told, 60, "the dispatcher finds no broker")
    finally:
        os.kill(plant.up, signal.SIGCONT)
    ended = time.time()
    fault = f"SIGKILL of the broker between marked and sent, {state} when the dispatcher goes on"
    cell.recovered(fault, plant.settle(folder, 3) - ended)
    assert_invariants(plant, originals, folder)
    assert {job.claim_no for job in plant.jobs(folder)} == {1}


@pytest.mark.slow
def test_broker_restarted_three_times(plant: Plant, cell: Cell) -> None:
    originals, child = full_queue(plant, "thrice")
    for _ in range(3):
        before = plant.broker()
        os.kill(before, signal.SIGKILL)
        wait_for(lambda before=before: plant.broker() != before and _answers(plant), 30, "the broker is back")
        time.sleep(1)
    os.kill(child, signal.SIGCONT)
    ended = time.time()
    cell.recovered("broker killed and restarted three times", plant.settle("thrice", 8) - ended)
    assert_invariants(plant, originals, "thrice")


def _answers(plant: Plant) -> bool:
    try:
        return bool(client(plant).ping())
    except redis.RedisError:
        return False


@pytest.mark.slow
def test_broker_stopped_for_a_minute(plant: Plant, cell: Cell) -> None:
    plant.arm("finished", "stop")  # its message is received, done, and cannot be acknowledged
    originals = plant.drop("frozen", 6)
    queued(plant, "frozen", 6)
    plant.hit("finished")
    broker = plant.broker()
    os.kill(broker, signal.SIGSTOP)
    os.kill(plant.coloring()[0], signal.SIGCONT)
    time.sleep(60)
    os.kill(broker, signal.SIGCONT)
    ended = time.time()
    cell.recovered("SIGSTOP of the broker for 60 s", plant.settle("frozen", 6) - ended)
    assert_invariants(plant, originals, "frozen")


@pytest.mark.slow
def test_broker_down_at_start(cell: Cell) -> None:
    with parts() as plant:
        originals = plant.drop("early", 3)
        plant.wait_jobs("early", 3, 60)
        time.sleep(15)
        assert {job.state for job in plant.jobs("early")} == {JobState.QUEUED}, "the rows are there without a broker"
        with broker_of(plant):
            ended = time.time()
            cell.recovered("broker down when watcher and worker start", plant.settle("early", 3) - ended)
            assert_invariants(plant, originals, "early")
