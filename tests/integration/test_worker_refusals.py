"""A worker that cannot colour says so at once, with its exit code, instead of failing job after job."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli import main
from model import registry
from worker import db
from worker.errors import ExitCode


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """With a migrated database."""
    db.migrate(f"sqlite:///{tmp_path}/state/photochrom.db")
    return tmp_path / "state"


def test_spoilt_weights_are_refused(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(registry.SHIPPED, tmp_path / "weights")
    for weights in (tmp_path / "weights").glob("*/generator.npz"):
        weights.write_bytes(weights.read_bytes()[:-1000])
    monkeypatch.setattr(registry, "SHIPPED", tmp_path / "weights")
    asked = CliRunner().invoke(main, ["worker", "--state-dir", str(state_dir)])
    assert asked.exit_code == ExitCode.WEIGHTS
    assert "sha256" in asked.stderr


def test_missing_weights_are_refused(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SHIPPED", tmp_path / "nothing")
    asked = CliRunner().invoke(main, ["worker", "--state-dir", str(state_dir)])
    assert asked.exit_code == ExitCode.WEIGHTS


def test_a_gpu_that_is_not_there_is_refused(state_dir: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if int(found):
        pytest.skip("this host has a GPU")
    asked = CliRunner().invoke(main, ["worker", "--device", "gpu", "--state-dir", str(state_dir)])
    assert asked.exit_code == ExitCode.DEPENDENCY
    assert "TensorFlow finds no GPU" in asked.stderr
