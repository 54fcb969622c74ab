"""Scans keep coming while random parts are killed; in the end nothing is lost and nothing is there twice."""

import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import Manifest, entry
from plant import Plant, cut_off, png, running, scan

from worker.tables import JobState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

KILL_EVERY_S = (2.0, 6.0)
#: derivatives between two kills of what colours: it takes seconds to be warm again, and something must get done
DONE_BETWEEN = 5
#: in a run so long each part is hit: whoever is not has not been tried
ALL_HIT_MINUTES = 10
PARTS = {"watch", "beat", "broker", "worker", "child", "supervisor"}


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Killer:
    """Kills one part at a time, by chance."""

    def __init__(self, plant: Plant, chance: random.Random) -> None:
        self.plant, self.chance = plant, chance
        self.kills: Counter[str] = Counter()
        self.last = 0.0  # Unix time
        self._coloured = 0

    def strike(self, coloured: int) -> None:
        """`coloured`: how many derivatives there are by now."""
        parts: dict[str, Callable[[], int]] = {
            "watch": lambda: self.plant._part("watch"),
            "beat": lambda: self.plant._part("beat"),
            "broker": self.plant.broker,
        }
        if coloured - self._coloured >= DONE_BETWEEN:
            parts = {
                "worker": lambda: self.plant._part("worker"),
                "child": lambda: (self.plant.coloring() or [0])[0],
                "supervisor": lambda: self.plant.up,
            }
        name = self.chance.choice(sorted(parts))
        # a broker that has not been started again since it was killed is still named by its file
        if (pid := parts[name]()) and cut_off(pid):
            if name in {"worker", "child", "supervisor"}:
                self._coloured = coloured
            self.kills[name] += 1
            if name == "supervisor":
                self.plant.up_again()
            self.last = time.time()


def drop(plant: Plant, number: int, dropped: dict[bytes, float], originals: Manifest) -> None:
    """One more scan, in boxes of a hundred; notes when it came, and how it and its box looked then."""
    name = f"box {number // 100}/{number}.png"
    hidden, path = plant.inbox / f".{number}", plant.inbox / name
    hidden.write_bytes(png(scan(number, 24)))
    path.parent.mkdir(exist_ok=True)
    hidden.rename(path)
    dropped[name.encode()] = time.time()
    originals |= {os.fsencode(put): entry(os.fsencode(put)) for put in (path.parent, path)}


def test_soak(tmp_path: Path, cell: Cell, request: pytest.FixtureRequest) -> None:
    minutes, count = request.config.getoption("--soak-minutes"), request.config.getoption("--soak-scans")
    chance = random.Random(request.config.getoption("--soak-seed"))
    with running(tmp_path) as plant:
        killer, originals = Killer(plant, chance), Manifest()
        dropped: dict[bytes, float] = {}
        began_s = time.monotonic()
        next_kill_s = began_s + 5
        while (ran_s := time.monotonic() - began_s) < 60 * minutes or len(dropped) < count:
            while len(dropped) < min(count, count * ran_s / (50 * minutes)):
                drop(plant, len(dropped), dropped, originals)
            if time.monotonic() >= next_kill_s and ran_s < 60 * minutes:
                killer.strike(sum(1 for path in plant.output.rglob("*.png")))
                next_kill_s = time.monotonic() + chance.uniform(*KILL_EVERY_S)
            time.sleep(0.1)
        drop(plant, len(dropped), dropped, originals)  # so that there is one more to be done, whatever came before
        wait_for(lambda: len(list(plant.output.rglob("*.png"))) >= len(dropped), 60 + 3 * count, "all are coloured")
        drained = plant.settle("", len(dropped), 120)
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
    # work goes on: the backlog that killing left takes as long as it takes, but the first scan after it may not
    goes_on = min(job.finished_at.timestamp() for job in jobs if job.finished_at
                  and job.finished_at.timestamp() > killer.last) - killer.last  # fmt: skip
    note = f"({told}; the first scan {goes_on:.0f} s after the last kill, all {drained - killer.last:.0f} s after it)"
    assert (report["lost"], report["double"]) == (0, 0)
    assert minutes < ALL_HIT_MINUTES or killer.kills.keys() == PARTS, "a part was never killed"
    cell.recovered("soak: random parts killed while scans come", goes_on, note)
