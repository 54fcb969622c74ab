"""A point stops the thread that comes to it there, and not a little later."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMES_TO_IT = """
import sys, threading
from pathlib import Path
from worker import fault

def work():
    for number in range(20):
        fault.point(f"here-{number}")
        Path(sys.argv[1], f"went-on-{number}").touch()

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the state of the process")
def test_the_thread_that_comes_to_a_stop_goes_no_further(tmp_path: Path) -> None:
    """Beside a main thread, which would take a signal that is sent to the process."""
    for number in range(20):
        (tmp_path / f"here-{number}").write_text("stop")
    environ = os.environ | {"PHOTOCHROM_FAULT": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", COMES_TO_IT, str(tmp_path)], env=environ)
    try:
        for number in range(20):
            while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.005)
            assert (tmp_path / f"here-{number}.hit").exists()
            assert not (tmp_path / f"went-on-{number}").exists(), "it went on for a while"
            os.kill(process.pid, signal.SIGCONT)
            while not (tmp_path / f"went-on-{number}").exists():
                time.sleep(0.005)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
