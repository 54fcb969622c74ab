"""Scans keep coming while random parts are killed; in the end nothing is lost and nothing is there twice."""

import random
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from cells import Cell
from installation import wait_for
from plant import Plant, assert_invariants, cut_off, manifest, png, running, scan

from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

KILL_EVERY_S = (2.0, 6.0)
#: derivatives between two kills of what colours: it takes seconds to be warm again, and something must get done
DONE_BETWEEN = 5


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Killer:
    """Kills one part at a time, by chance."""

    def __init__(self, plant: Plant, chance: random.Random) -> None:
        self.plant, self.chance = plant, chance
        self.kills: Counter[str] = Counter()
        self._coloured = 0

    def strike(self, coloured: int) -> None:
        """`coloured`: how many derivatives there are by now."""
        parts: dict[str, Callable[[], int]] = {
            "watch": lambda: self.plant._part("watch"),
            "beat": lambda: self.plant._part("beat"),
            "broker": self.plant.broker,
        }
        if coloured - self._coloured >= DONE_BETWEEN:
            parts = {"worker": lambda: self.plant._part("worker"), "child": lambda: (self.plant.coloring() or [0])[0]}
        name = self.chance.choice(sorted(parts))
        if pid := parts[name]():
            if name in {"worker", "child"}:
                self._coloured = coloured
            cut_off(pid)
            self.kills[name] += 1


def test_soak(tmp_path: Path, cell: Cell, request: pytest.FixtureRequest) -> None:
    minutes, count = request.config.getoption("--soak-minutes"), request.config.getoption("--soak-scans")
    chance = random.Random(request.config.getoption("--soak-seed"))
    with running(tmp_path) as plant:
        killer, dropped, coloured = Killer(plant, chance), {}, 0
        began_s = time.monotonic()
        next_kill_s = began_s + 5
        while (ran_s := time.monotonic() - began_s) < 60 * minutes or len(dropped) < count:
            while len(dropped) < min(count, count * ran_s / (50 * minutes)):
                name = f"box {len(dropped) // 100}/{len(dropped)}.png"
                hidden = plant.inbox / f".{len(dropped)}"
                hidden.write_bytes(png(scan(len(dropped), 24)))
                (plant.inbox / name).parent.mkdir(exist_ok=True)
                shutil.move(hidden, plant.inbox / name)
                dropped[name.encode()] = time.time()
            if time.monotonic() >= next_kill_s and ran_s < 60 * minutes:
                coloured = sum(1 for path in plant.output.rglob("*.png"))
                killer.strike(coloured)
                next_kill_s = time.monotonic() + chance.uniform(*KILL_EVERY_S)
            time.sleep(0.1)
        originals = manifest(plant.inbox)
        ended = time.time()
        wait_for(lambda: len(list(plant.output.rglob("*__color*"))) >= count, 60 + 3 * count, "all are coloured")
        recovered = plant.settle("", count, 120) - ended
        assert_invariants(plant, originals)
        jobs = plant.jobs()

    done = [job.finished_at.timestamp() - dropped[job.path] for job in jobs if job.finished_at]
    queued = [job.created_at.timestamp() - dropped[job.path] for job in jobs]
    report = {
        "scans": len(dropped), "minutes": f"{minutes:g}", "kills": sum(killer.kills.values()), **killer.kills,
        "redeliveries": sum(job.claim_no - 1 for job in jobs), "recoveries": sum(job.lost > 0 for job in jobs),
        "drop to queued p50/p99 (s)": f"{statistics.median(queued):.1f}/{percentile(queued, 0.99):.1f}",
        "drop to done p50/p99 (s)": f"{statistics.median(done):.1f}/{percentile(done, 0.99):.1f}",
        "lost": len(dropped) - sum(job.state is JobState.DONE for job in jobs),
        "double": len(jobs) - len({job.output_path for job in jobs}),
    }  # fmt: skip
    told = ", ".join(f"{name} {value}" for name, value in report.items())
    print(told)
    cell.held("soak: random parts killed while scans come", f"({told}; all done {recovered:.0f} s after the last kill)")
    assert (report["lost"], report["double"]) == (0, 0)
