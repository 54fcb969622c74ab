"""The whole way, on real input: a folder, `photochrom up`, derivatives, rows, and originals as they were."""

import hashlib
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from installation import Installation, gray, processes_of, wait_for

pytestmark = pytest.mark.timeout(240)

ODD_NAMES = (b"line\nend.png", b"caf\xc3\xa9 \xe2\x98\x83.jpg", b"not \xff utf-8.tif", b"n" * 251 + b".png")


def manifest(folder: Path) -> dict[bytes, tuple[str, int, int]]:
    """Every file's bytes, mtime and mode."""
    found = {}
    for directory, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            path = os.path.join(directory, name)
            status = os.stat(path)
            digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
            found[path] = (digest, status.st_mtime_ns, status.st_mode)
    return found


def write(path: bytes, picture: np.ndarray) -> None:
    """A plain file of the kind that the name says."""
    suffix = os.fsdecode(os.path.splitext(path)[1])
    if suffix == ".tif":
        scratch = os.path.join(os.path.dirname(path), b".scratch.tif")
        tifffile.imwrite(os.fsdecode(scratch), picture, photometric="minisblack", resolution=(600, 600), metadata=None)
        os.rename(scratch, path)
        return
    encoded = cv2.imencode(suffix, picture)[1].tobytes()
    with open(path, "wb") as file:
        file.write(encoded)


def fill(inbox: Path) -> None:
    """Every kind of file the issue names."""
    (inbox / "1911" / "glass plates").mkdir(parents=True)
    base = os.fsencode(inbox)
    write(base + b"/eight.tif", gray("astronaut", 8))
    write(base + b"/1911/sixteen.tif", gray("chelsea", 16))
    write(base + b"/1911/glass plates/sixteen.png", gray("coffee", 16))
    write(base + b"/eight.png", gray("rocket", 8))
    write(base + b"/eight.jpg", gray("coffee", 8))
    for number, name in enumerate(ODD_NAMES):
        write(base + b"/1911/" + name, np.roll(gray("chelsea", 8), 20 * number + 10, axis=1))
    write(base + b"/1911/again.tif", gray("astronaut", 8))  # the same bytes as eight.tif
    (inbox / "notes.txt").write_text("not a picture")
    (inbox / "fake.png").write_text("not a picture either")
    whole = (inbox / "eight.tif").read_bytes()
    (inbox / "cut.tif").write_bytes(whole[: len(whole) // 2])
    for name in ("eight.png", "1911/sixteen.tif"):
        (inbox / name).chmod(0o440)


def test_drain_colours_everything_once_and_touches_no_original(installation: Installation) -> None:
    fill(installation.inbox)
    before = manifest(installation.inbox)
    first = installation.drain()
    assert first.returncode == 3, first.stdout + first.stderr  # cut.tif is quarantined
    assert manifest(installation.inbox) == before

    jobs = installation.jobs()
    states = {path: job["state"] for path, job in jobs.items()}
    assert states.pop("cut.tif") == "quarantined"
    assert states.pop("fake.png") in {"skipped", "quarantined"}
    assert sorted((states.pop("eight.tif"), states.pop("1911/again.tif"))) == ["done", "duplicate"]
    assert set(states.values()) == {"done"}, states
    assert len(states) == 4 + len(ODD_NAMES)
    assert "notes.txt" not in jobs
    assert "no picture" in installation.run("why", str(installation.inbox / "notes.txt")).stdout

    check_derivatives(installation, jobs)
    published = manifest(installation.output)
    assert not [path for path in published if os.path.basename(path).startswith(b".")]

    again = installation.drain()
    assert again.returncode == 0, again.stdout + again.stderr
    assert manifest(installation.output) == published
    assert installation.jobs() == jobs
    assert processes_of(installation.state_dir) == []


def check_derivatives(installation: Installation, jobs: dict[str, dict[str, object]]) -> None:
    """Size, depth, name, row, mode and lightness of what was published."""
    expected = {
        "eight.tif": ("eight__color.tif", (512, 512, 3), np.uint8),
        "1911/sixteen.tif": ("1911/sixteen__color.tif", (300, 451, 3), np.uint16),
        "1911/glass plates/sixteen.png": ("1911/glass plates/sixteen__color.png", (400, 600, 3), np.uint16),
        "eight.png": ("eight__color.png", (427, 640, 3), np.uint8),
        "eight.jpg": ("eight__color.jpg", (400, 600, 3), np.uint8),
    }
    umask = os.umask(0)
    os.umask(umask)
    for source, (name, shape, depth) in expected.items():
        path = installation.output / name
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        assert (picture.shape, picture.dtype) == (shape, depth)
        assert np.ptp(picture.astype(int), axis=2).mean() > 2, f"{name} has no colour"
        row = jobs[source]
        assert row["output_path"] == str(path)
        assert row["output_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert row["source_sha256"] == hashlib.sha256((installation.inbox / source).read_bytes()).hexdigest()
        assert row["model_version"]
        assert row["attempts"] == 1
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask
        report = installation.json("verify", str(installation.inbox / source), str(path))
        if name.endswith(".jpg"):
            assert report["p99_9"] <= 2
        else:
            assert report["max"] <= (0.25 if depth is np.uint8 else 0.01)
    outputs = set(manifest(installation.output))
    derivatives = {path for path in outputs if not path.endswith(b".json")}
    assert len(derivatives) == sum(job["output_path"] is not None for job in jobs.values())
    assert outputs - derivatives == {path + b".json" for path in derivatives}  # a sidecar each


def test_slow_writer_moved_in_replaced_and_a_killed_worker(installation: Installation) -> None:
    big = np.tile(gray("astronaut", 16), (8, 8))
    with installation.up():
        elsewhere = installation.base / "elsewhere"
        (elsewhere / "box").mkdir(parents=True)
        write(os.fsencode(elsewhere / "box" / "moved.png"), gray("coffee", 8))
        (elsewhere / "box").rename(installation.inbox / "box")
        write_slowly(installation.inbox / "slow.jpg", cv2.imencode(".jpg", gray("chelsea", 8))[1].tobytes())

        write(os.fsencode(installation.inbox / "big.tif"), big)
        child = wait_for(lambda: running_worker(installation, "big.tif"), 60, "big.tif is being worked on")
        os.kill(child, signal.SIGKILL)
        killed_s = time.monotonic()

        wanted = {"box/moved.png", "slow.jpg", "big.tif"}
        wait_for(lambda: finished(installation) >= wanted, 60, "everything is done within 60 s of the kill")
        assert time.monotonic() - killed_s < 60
        jobs = installation.jobs()
        assert jobs["big.tif"]["attempts"] == 2
        assert jobs["slow.jpg"]["attempts"] == 1
        assert len(list(installation.output.rglob("big*.tif"))) == 1

        old = (installation.output / "slow__color.jpg").read_bytes()
        write(os.fsencode(installation.inbox / "slow.jpg"), gray("rocket", 8))
        wait_for(lambda: (installation.output / "slow__color.jpg").read_bytes() != old, 60, "the new content is taken")
        wait_for(lambda: "slow.jpg" in finished(installation), 30, "and recorded")
        assert len(list(installation.output.glob("slow*.jpg"))) == 1


def write_slowly(path: Path, content: bytes) -> None:
    """Longer than the settle time, with pauses shorter than it."""
    with path.open("wb") as file:
        for part in range(6):
            file.write(content[part * len(content) // 6 : (part + 1) * len(content) // 6])
            file.flush()
            time.sleep(0.5)


def running_worker(installation: Installation, path: str) -> int | None:
    """The process that works on a scan now."""
    job = installation.jobs().get(path)
    if job is None or job["state"] != "running":
        return None
    return int(str(job["worker"]).split(":")[-2])


def finished(installation: Installation) -> set[str]:
    return {path for path, job in installation.jobs().items() if job["state"] == "done"}
