"""Messages that a hostile sender could write into the broker: refused, and the worker and its queue go on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from plant import Plant

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
