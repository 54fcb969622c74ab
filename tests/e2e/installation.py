"""A real `photochrom up` in a subprocess, on real scans, with the shipped weights."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from skimage import data


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll until the condition gives something true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def processes_of(state_dir: Path) -> list[int]:
    """Processes, other than us, that carry this state directory in their command line or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if os.fsencode(state_dir) in told and state != "Z":
                found.append(int(entry.name))
    return found


def has_ended(pid: int) -> bool:
    """Whether a process is no more, but for its parent's word."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@dataclasses.dataclass
class Installation:
    """One state directory with its inbox and output."""

    base: Path
    #: further variables of the environment
    extra: dict[str, str] = dataclasses.field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    @property
    def inbox(self) -> Path:
        return self.base / "inbox"

    @property
    def output(self) -> Path:
        return self.base / "output"

    @property
    def state_dir(self) -> Path:
        return self.base / "state"

    @property
    def environ(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PHOTOCHROM_")}
        return clean | {"PHOTOCHROM_STATE_DIR": str(self.state_dir), "PHOTOCHROM_SETTLE_S": "1"} | self.extra

    def command(self, *arguments: str) -> list[str]:
        return [*self.prefix, sys.executable, "-m", "daemon.cli", *arguments]

    def run(self, *arguments: str, timeout_s: float = 110) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environ, cwd=self.base, capture_output=True, text=True, timeout=timeout_s
        )

    def drain(self) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--inbox", str(self.inbox), "--output", str(self.output), "--drain")

    def json(self, *arguments: str) -> Any:
        asked = self.run(*arguments, "--json")
        assert asked.returncode == 0, asked.stderr
        return json.loads(asked.stdout)

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The jobs by display path (superseded ones left out)."""
        return {job["path"]: job for job in self.json("jobs") if job["state"] != "superseded"}

    @contextlib.contextmanager
    def up(self, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        """`photochrom up` until the block ends; then SIGTERM, and nothing may be left."""
        log = (self.base / "up.log").open("wb")
        process = subprocess.Popen(
            self.command("up", "--inbox", str(self.inbox), "--output", str(self.output)),
            env=self.environ | environ, cwd=self.base, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process
            assert process.poll() is None, (self.base / "up.log").read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
            assert processes_of(self.state_dir) == []
        finally:
            for pid in processes_of(self.state_dir):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            log.close()


def gray(picture: str, bits: int) -> np.ndarray:
    """A photograph from scikit-image as a gray scan."""
    rgb = getattr(data, picture)()
    values = rgb if rgb.ndim == 2 else rgb @ np.array([0.2126, 0.7152, 0.0722])
    if bits == 8:
        return (values + 0.5).astype(np.uint8)
    fine = np.random.default_rng(0).uniform(-0.5, 0.5, values.shape)
    return np.clip((values + fine) * 257 + 0.5, 0, 65535).astype(np.uint16)
