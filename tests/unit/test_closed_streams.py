"""Started with standard streams closed, as some service managers and scripts do, every verb works."""

import subprocess
import sys
from pathlib import Path

import pytest

#: what a verb sees that opens a file first of all
LOOK = """
import os, sys
from daemon.cli import main
main(["config", "--help"], standalone_mode=False)
opened = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
print("words for people")
print("and for logs", file=sys.stderr)
os.system("echo of a child; echo of a child >&2")
sys.exit(opened < 3 or os.fstat(opened).st_size)
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path, closed: str) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    assert subprocess.run([*shell, sys.executable, "-c", LOOK, tmp_path / "file"], timeout=60).returncode == 0


def test_a_part_says_its_exit_code(state_dir: Path) -> None:
    shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"]
    done = subprocess.run([*shell, sys.executable, "-m", "daemon.cli", "watch"], timeout=60)
    assert done.returncode == 6  # there is no folder to watch
