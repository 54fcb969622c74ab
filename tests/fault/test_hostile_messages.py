"""Messages that a hostile sender could write into the broker: refused, and the worker and its queue go on."""

import os
import signal
import subprocess
import sys
import time

import pytest
import raw_messages_made
import redis
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from plant import Plant

from worker.settings import broker_socket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

#: before the right message of the job whose id is the argument, and behind it; each alone has ended a worker, a
#: colouring process or an attempt
HOSTILE = """
import sys
from worker import queue

job, send = int(sys.argv[1]), queue.app.send_task
for name, arguments, more in (
    (queue.COLORIZE, (job,), {"soft_time_limit": "x"}),
    (queue.COLORIZE, (job,), {"time_limit": 0.001}),
    (queue.COLORIZE, (job,), {"time_limit": "x"}),
    (queue.COLORIZE, (job,), {"countdown": 10**6}),
    (queue.COLORIZE, (job,), {"link": queue.app.signature(queue.TIDY)}),
    (queue.COLORIZE, (10**40,), {}),
    (queue.COLORIZE, ([{"job": [job]}],), {}),
    (queue.COLORIZE, ("x" * 10**6,), {}),
    ("celery.map", ({"task": queue.COLORIZE}, [[job]]), {"queue": queue.COLORIZE_QUEUE, "time_limit": "x"}),
):
    for priority in (0, 9):
        send(name, arguments, retry=False, priority=priority, **more)
queue.app.control.broadcast("shutdown")
"""


def test_hostile_messages(plant: Plant, cell: Cell) -> None:
    os.kill(worker := plant.part("worker"), signal.SIGSTOP)
    originals = plant.drop("hostile", 3)
    (first, *_) = plant.wait_jobs("hostile", 3)
    environ = plant.installation.environ
    subprocess.run([sys.executable, "-c", HOSTILE, str(first.id)], env=environ, cwd="/", check=True, timeout=60)
    colouring = plant.coloring()
    os.kill(worker, signal.SIGCONT)
    ended = time.time()
    cell.recovered("hostile messages: times, types, sizes, tasks to follow are refused, time limits not heeded",
                   plant.settle("hostile", 3) - ended)  # fmt: skip
    assert_invariants(plant, originals, "hostile")
    assert (plant.part("worker"), plant.coloring()) == (worker, colouring), "a process was lost"
    assert {(job.claim_no, job.lost) for job in plant.jobs("hostile")} == {(1, 0)}
    log = plant.installation.state_dir / "logs" / "worker.log"
    wait_for(lambda: log.read_text().count("message_refused") >= 12, 30, "those behind the scans are refused too")
    assert (plant.part("worker"), plant.coloring()) == (worker, colouring), "a process was lost"


def test_bytes_that_are_no_message(plant: Plant, cell: Cell) -> None:
    """Each of them alone has ended the worker, or made it take the memory for what unpacks to thousands of times."""
    os.kill(worker := plant.part("worker"), signal.SIGSTOP)
    before, foreign = plant.told("worker", "message_refused"), [*raw_messages_made.foreign().values()]
    originals = plant.drop("foreign", 3)
    plant.wait_jobs("foreign", 3)
    with redis.Redis(unix_socket_path=str(broker_socket(plant.installation.state_dir))) as client:
        for queue in ("colorize", "colorize\x06\x163", "colorize\x06\x169"):
            client.rpush(f"photochrom:{queue}", *foreign)  # taken next
            client.lpush(f"photochrom:{queue}", *foreign)
    colouring = plant.coloring()
    os.kill(worker, signal.SIGCONT)
    ended = time.time()
    cell.recovered("bytes in the queue that are no message, among them compressed and nested ones, are dropped",
                   plant.settle("foreign", 3) - ended)  # fmt: skip
    assert_invariants(plant, originals, "foreign")
    wait_for(lambda: plant.told("worker", "message_refused") == before + 6 * len(foreign), 30, "all are dropped")
    assert (plant.part("worker"), plant.coloring()) == (worker, colouring), "a process was lost"
    assert {(job.claim_no, job.lost) for job in plant.jobs("foreign")} == {(1, 0)}
