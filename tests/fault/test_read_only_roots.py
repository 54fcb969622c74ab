"""A share that is mounted read-only: its scans are coloured all the same, and nothing is written there."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from cells import Cell
from installation import wait_for
from invariants import assert_invariants
from manifests import manifest
from mounts import is_read_only, mount, own_mounts, tmpfs, unmount, without_privileges
from plant import Plant, cut_off, png, running, scan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant whose inbox is a read-only mount of a folder that others write to: `share`."""
    own_mounts()
    base = tmp_path_factory.mktemp("read-only")
    with tmpfs(base / "share", "16m", "share"):
        (base / "inbox").mkdir()
        mount("--bind", base / "share", base / "inbox")
        mount("-o", "remount,bind,ro", base / "inbox")
        try:
            with running(base, without_privileges()) as plant:
                assert is_read_only(plant.inbox)
                yield plant
        finally:
            unmount(base / "inbox")


def put(plant: Plant, folder: str, count: int) -> None:
    """New scans, by whoever may write to the share."""
    made = plant.installation.base / "share" / f".{folder}"
    made.mkdir()
    for number in range(count):
        (made / f"{number}.png").write_bytes(png(scan(800 + len(folder) + number)))
    made.rename(made.with_name(folder))


def nobody_tried(plant: Plant) -> bool:
    """Whether no part has met the error of who writes to a read-only mount."""
    logs = [*(plant.installation.state_dir / "logs").glob("*.log"), plant.installation.base / "up.log"]
    said = "".join(log.read_text(errors="replace") for log in logs)
    return "EROFS" not in said and "Read-only file system" not in said


def test_root_mounted_read_only(read_only: Plant, cell: Cell) -> None:
    """By the mount; the share itself goes on changing, a scan is replaced on it."""
    plant = read_only
    put(plant, "bound", 3)
    began = time.time()
    plant.settle("bound", 3)
    (plant.installation.base / "share" / "bound" / "1.png").write_bytes(png(scan(899)))
    originals = manifest(plant.inbox / "bound")
    newest = {digest for digest, *_ in originals.values()}
    wait_for(lambda: {job.source_sha256 for job in plant.jobs("bound")} == newest, 60, "the new content is submitted")
    ended = plant.settle("bound", 3)
    assert_invariants(plant, originals, "bound")
    assert nobody_tried(plant)
    cell.held("source root mounted read-only", f"({ended - began:.1f} s for three scans, one of them replaced)")


def test_share_becomes_read_only(read_only: Plant, cell: Cell) -> None:
    """The whole file system, with a job in hand and others queued; the watcher and the worker start anew on it."""
    plant = read_only
    share = plant.installation.base / "share"
    plant.arm("before_claim", "stop")
    put(plant, "frozen", 3)
    plant.hit("before_claim")
    (child,) = plant.coloring()
    plant.wait_jobs("frozen", 3)
    everything = manifest(plant.inbox)
    mount("-o", "remount,ro", share)
    try:
        assert is_read_only(share)
        os.kill(child, signal.SIGCONT)
        for part in ("watch", "worker"):
            cut_off(plant.part(part))
        began = time.time()
        seconds = plant.settle("frozen", 3) - began
        assert manifest(plant.inbox) == everything
        assert_invariants(plant, manifest(plant.inbox / "frozen"), "frozen")
        assert nobody_tried(plant)
    finally:
        mount("-o", "remount,rw", share)
    fault = "source root's file system becomes read-only with work queued, watcher and worker killed"
    cell.recovered(fault, seconds)
