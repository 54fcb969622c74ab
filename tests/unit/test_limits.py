"""Limits of a colouring process, in a process of its own: what is over them fails there, and only there."""

import subprocess
import sys
from pathlib import Path

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
