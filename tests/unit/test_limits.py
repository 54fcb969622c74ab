"""Limits of a colouring process, in a process of its own: what is over them fails there, and only there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli import main
from worker import limits

PROGRAM = """
import errno, resource
from worker import limits
limits.apply(memory_mib={memory}, max_megapixels={megapixels}, processes=2)
{act}
"""


def run(act: str, *, memory: int = 256, megapixels: float = 1) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(memory=memory, megapixels=megapixels, act=act)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_memory() -> None:
    assert run("bytearray(128 << 20)").returncode == 0
    done = run("bytearray(512 << 20)")
    assert "MemoryError" in done.stderr, done.stderr
    assert run("bytearray(512 << 20)", memory=0).returncode == 0


def test_file_size(tmp_path: Path) -> None:
    act = f"""
with open({str(tmp_path / "large")!r}, "wb", buffering=0) as file:
    file.truncate(70 << 20)
    try:
        file.truncate(80 << 20)
    except OSError as error:
        print(error.errno == errno.EFBIG)
"""
    assert run(act).stdout == "True\n"


def test_no_cores_and_nothing_is_raised() -> None:
    act = """
print(resource.getrlimit(resource.RLIMIT_CORE)[0])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
limits.apply(memory_mib=1, max_megapixels=1000, processes=1)
print(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
"""
    assert run(act).stdout.split() == ["0", "1000"]


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="takes root and setpriv")
def test_no_capability_is_handed_down() -> None:
    """As under a unit with AmbientCapabilities=CAP_LEASE."""
    program = (
        "import subprocess; from worker import limits\n"
        "look = ['sed', '-n', 's/^CapEff:\\\\s*//p', '/proc/self/status']\n"
        "subprocess.run(look); limits.hand_down_no_capability(); subprocess.run(look)"
    )
    unit = ["setpriv", "--securebits=+noroot", "--inh-caps=-all,+lease", "--ambient-caps=-all,+lease"]
    done = subprocess.run([*unit, sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert [int(line, 16) for line in done.stdout.split()] == [1 << 28, 0], done.stderr


@pytest.mark.parametrize("verb", ["worker", "trainer"])
def test_what_parses_pictures_is_handed_none(verb: str, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(limits, "hand_down_no_capability", lambda: called.append(verb))
    assert CliRunner().invoke(main, [verb]).exit_code == 9  # there is no database
    assert called == [verb]
