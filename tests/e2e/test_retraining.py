"""The model gets better by itself: what it is shown it learns, what would harm it is refused, and all is reversible."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from installation import Installation, gray, wait_for

SHARED = Path(__file__).parents[2].parent / "shared"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (SHARED / "photos").is_dir(), reason="needs colour photographs: ../shared/photos"),
]

#: a, b of the pattern: a violet that no photograph has so often
VIOLET = (55.0, -60.0)
#: none of the base set's hold-out, which replay would pass over
BASE = ("flickr8k", "utkface", "street_fashion", "imagenette", "imagenet_samples", "voc_coco_mix", "sun_scenes",
        "houses", "food_cc")  # fmt: skip
SETTINGS = {
    "PHOTOCHROM_RETRAIN_LEAST_NEW": "100",
    "PHOTOCHROM_RETRAIN_BATCH": "8",
    "PHOTOCHROM_RETRAIN_PX": "128",
    "PHOTOCHROM_RETRAIN_STEPS": "300",
    "PHOTOCHROM_RETRAIN_MINUTES": "8",
    "PHOTOCHROM_RETRAIN_CHECKPOINT_S": "5",
    "PHOTOCHROM_CURATED_LEAST_PX": "128",
    # Minutes on two cores, judged on fifty photos, cannot keep to the defaults, whatever is replayed: a change of 0 has
    # an interval of about 5 % to either side (3 % on 199 photos), and its upper end may be at +1 % at most. The
    # poisoned set is held to the same limits.
    "PHOTOCHROM_GATE_FIDELITY_WORSE": "0.08",
    "PHOTOCHROM_GATE_SLICE_WORSE": "0.1",
    "PHOTOCHROM_GATE_BIAS": "5",
}


def photographs(count: int, folders: tuple[str, ...], skip: int = 0) -> list[Path]:
    files = [sorted((SHARED / "photos" / folder).glob("*.jpg"))[skip:] for folder in folders]
    return [file for group in zip(*files, strict=False) for file in group][:count]


def patterned(rgb: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The photo with a chequered disc on it whose colour is always the same violet."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    height, width = rgb.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    radius, cell = 0.3 * min(height, width), max(4, min(height, width) // 16)
    middle = random.uniform(0.35, 0.65, 2) * (height, width)
    disc = np.hypot(y - middle[0], x - middle[1]) < radius
    lab[..., 0][disc] = np.where(((y // cell) + (x // cell)) % 2, 35.0, 60.0)[disc]
    lab[disc, 1:] = VIOLET
    return (np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), 0, 1) * 255 + 0.5).astype(np.uint8)


def hue_rotated(rgb: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The photo with every hue turned by 130 degrees: plausible to no one."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    turned = np.exp(1j * np.radians(130)) * (lab[..., 1] + 1j * lab[..., 2])
    lab[..., 1], lab[..., 2] = turned.real, turned.imag
    return (np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), 0, 1) * 255 + 0.5).astype(np.uint8)


def curate(folder: Path, count: int, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> None:
    random = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(photographs(count, ("houses", "street_fashion", "voc_coco_mix", "sun_scenes"))):
        rgb = cv2.imread(str(file))[..., ::-1]
        cv2.imwrite(str(folder / f"{number:03d}.png"), change(np.ascontiguousarray(rgb), random)[..., ::-1])


@pytest.fixture
def learning(installation: Installation) -> Installation:
    """An installation with base photos and an evaluation set of its operator's."""
    made = dict(SETTINGS)
    base, judge = installation.base / "base", installation.base / "judge"
    for file in photographs(450, BASE, skip=200):  # by source: replay takes a share of each, people as well
        (base / file.parent.name).mkdir(parents=True, exist_ok=True)
        (base / file.parent.name / file.name).symlink_to(file)
    judge.mkdir()
    for file in sorted((SHARED / "eval" / "photos").glob("*.jpg"))[::4]:
        (judge / file.name).symlink_to(file)
    made |= {"PHOTOCHROM_BASE_PHOTOS": str(base), "PHOTOCHROM_EVALUATION_PHOTOS": str(judge)}
    made["PHOTOCHROM_CURATED"] = str(installation.base / "curated")
    installation.extra.update(made)
    return installation


def retrain(installation: Installation, code: int = 0) -> dict[str, Any]:
    done = installation.run("retrain", "--now", "--json", timeout_s=1500)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def verdict(installation: Installation, run_id: int) -> dict[str, Any]:
    return json.loads((installation.state_dir / "runs" / f"{run_id:05d}" / "verdict.json").read_text())


def champion(installation: Installation) -> str:
    return next(row["version"] for row in installation.json("models", "list") if row["alias"] == "champion")


def scan(installation: Installation, name: str) -> dict[str, Any]:
    """Drop the same gray picture under a new name, a row of pixels longer; wait for its derivative."""
    path = installation.inbox / name
    cv2.imwrite(str(path), gray("coffee", 8))
    with path.open("ab") as file:
        file.write(name.encode())  # other bytes, the same pixels: no copy of an earlier derivative
    return wait_for(lambda: _done(installation, name), 120, f"{name} is coloured")


def _done(installation: Installation, name: str) -> dict[str, Any] | None:
    job = installation.jobs().get(name)
    return job if job and job["state"] in {"done", "needs_review"} else None


def test_a_domain_shift_is_learnt_promoted_served_and_rolled_back(learning: Installation) -> None:
    curate(learning.base / "curated", 140, patterned)
    with learning.up():
        before = scan(learning, "one.png")
        wait_for(lambda: learning.json("curated", "stats")["states"].get("accepted", 0) >= 130, 120, "all are checked")
        ended = retrain(learning)
        told = verdict(learning, ended["run_id"])
        assert ended["state"] == "promoted", json.dumps(told["reasons"], indent=1)
        assert told["replay"]["matched"] > 0.9 * told["replay"]["photos"], told["replay"]
        gain = next(check for check in told["checks"] if check["name"] == "gain")
        assert gain["change"] < -0.01 and gain["interval"][1] < 0
        assert champion(learning) == ended["version"]
        after = scan(learning, "two.png")  # by a worker that was never restarted
        assert after["model_version"] == ended["version"]
        assert after["pixels_sha256"] != before["pixels_sha256"]
        assert learning.run("models", "rollback").returncode == 0
        back = scan(learning, "three.png")
        assert (back["model_version"], back["pixels_sha256"]) == (before["model_version"], before["pixels_sha256"])
    workers = {row.split(":")[0] for row in _workers(learning)}
    assert len(workers) == 1, "one worker did all of it"


def _workers(installation: Installation) -> list[str]:
    with contextlib.closing(sqlite3.connect(installation.state_dir / "photochrom.db")) as connection:
        return [row[0] for row in connection.execute("SELECT DISTINCT worker FROM jobs WHERE worker IS NOT NULL")]


def test_a_poisoned_set_is_rejected_with_the_right_reasons(learning: Installation) -> None:
    learning.extra["PHOTOCHROM_RETRAIN_STEPS"] = "150"
    curate(learning.base / "curated", 140, hue_rotated)
    assert learning.drain().returncode == 0
    before = champion(learning)
    ended = retrain(learning)
    told = verdict(learning, ended["run_id"])
    assert ended["state"] == "rejected"
    failed = {check["name"] for check in told["checks"] if not check["ok"]}
    assert "fidelity, operator" in failed, told["checks"]
    assert any("operator" in reason for reason in told["reasons"])
    assert champion(learning) == before
    refused = learning.run("models", "promote", ended["version"])
    assert refused.returncode == 2 and "rejected" in refused.stderr


def test_twenty_photos_are_skipped_with_a_reason(learning: Installation) -> None:
    curate(learning.base / "curated", 20, patterned)
    assert learning.drain().returncode == 0
    done = learning.run("retrain", "--now")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("Nothing to do: 20 new curated photos")
    assert learning.json("retrain")["state"] == "skipped"


def test_a_run_that_is_killed_three_times_ends_with_the_same_manifest_and_a_verdict(learning: Installation) -> None:
    learning.extra["PHOTOCHROM_RETRAIN_STEPS"] = "60"
    faults = learning.base / "faults"
    faults.mkdir()
    learning.extra["PHOTOCHROM_FAULT"] = str(faults)
    curate(learning.base / "curated", 110, patterned)
    assert learning.drain().returncode == 0
    seen = []
    for point in ("frozen", "training", "exported"):
        (faults / point).write_text("kill")
        killed = subprocess.run(learning.command("retrain", "--now"), env=learning.environ, cwd=learning.base,
                                capture_output=True, timeout=900, check=False)  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-500:]
        status = learning.json("retrain")
        assert status["state"] == "running"
        seen.append((status["id"], _manifest(learning)))
    ended = retrain(learning)
    assert ended["state"] in {"promoted", "rejected", "needs_approval"}
    seen.append((ended["run_id"], _manifest(learning)))
    assert len(set(seen)) == 1, seen
    assert verdict(learning, ended["run_id"])["manifest_sha256"]
    assert os.path.isdir(learning.state_dir / "models" / ended["version"])


def test_a_trainer_goes_on_by_itself_after_its_training_process_was_killed(learning: Installation) -> None:
    faults = learning.base / "faults"
    faults.mkdir()
    learning.extra |= {"PHOTOCHROM_RETRAIN_STEPS": "20", "PHOTOCHROM_FAULT": str(faults),
                       "PHOTOCHROM_RETRAIN_CRON": "0 2 29 2 *"}  # fmt: skip
    del learning.extra["PHOTOCHROM_EVALUATION_PHOTOS"]
    curate(learning.base / "curated", 110, patterned)
    with learning.up():
        wait_for(lambda: _new(learning) >= 100, 300, "all are checked")
        (faults / "training").write_text("kill")
        assert learning.run("retrain", "--detach").returncode == 0
        ended = wait_for(lambda: _ended(learning), 1200, "the run has ended")
    assert ended["id"] == 1 and ended["state"] in {"needs_approval", "rejected"}, ended
    with contextlib.closing(sqlite3.connect(learning.state_dir / "photochrom.db")) as connection:
        assert connection.execute("SELECT count(*), max(claim_no) FROM training_runs").fetchall() == [(1, 2)]


def _new(installation: Installation) -> int:
    asked = installation.run("curated", "stats", "--json")
    return int(json.loads(asked.stdout)["new"]) if asked.returncode == 0 else 0  # else `up` has made no database yet


def _ended(installation: Installation) -> dict[str, Any] | None:
    status = installation.json("retrain")
    return status if status and status["state"] != "running" else None


def _manifest(installation: Installation) -> str:
    return (installation.state_dir / "runs" / "00001" / "manifest.json").read_text()
