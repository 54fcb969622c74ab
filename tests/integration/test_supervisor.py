"""The supervisor with children that are small shells: deaths are followed by restarts, and nothing is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

#: runs one child whose command is the argument; a child writes its process ids into files
SCRIPT = """
import os, sys
from pathlib import Path
from daemon.children import Child, stop
from daemon.progress import Console
from daemon.supervisor import Stops, Supervisor

folder, command = Path(sys.argv[1]), sys.argv[2]
child = Child("worker", ["sh", "-c", command], log=folder / "worker.log", environ=os.environ,
              on_end=lambda boot, asked: print("ended", boot, asked, flush=True))
with Stops() as stops:
    supervisor = Supervisor(Console(sys.stdout), folder, started=[], to_start=[child])
    code = supervisor.run(stops, lambda: None)
    print("code", code, flush=True)
    supervisor.stop(stops)
"""


def _wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _pid(path: Path) -> int:
    _wait_for(lambda: path.exists() and path.read_text().strip() != "")
    return int(path.read_text())


def _as_from_a_terminal() -> None:
    """A test run that was itself started in the background, or by nohup, ignores these and would hand that down."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextlib.contextmanager
def _supervised(folder: Path, command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_as_from_a_terminal,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _output(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    command = f"sleep 1000 & echo $! > {tmp_path}/grandchild; echo $$ > {tmp_path}/child; wait"
    with _supervised(tmp_path, command) as process:
        child, grandchild = _pid(tmp_path / "child"), _pid(tmp_path / "grandchild")
        process.send_signal(number)
        assert "code None" in _output(process)
        assert process.returncode == 0
        assert not _lives(child)
        assert not _lives(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_second_signal_kills_what_will_not_stop(tmp_path: Path) -> None:
    with _supervised(tmp_path, f"trap '' TERM; echo $$ > {tmp_path}/child; while :; do sleep 1; done") as process:
        child = _pid(tmp_path / "child")
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert _lives(child)
        process.send_signal(signal.SIGINT)
        _output(process)
        assert time.monotonic() - started < 10  # not the twelve seconds of patience
        assert not _lives(child)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_killed_supervisor_takes_its_children_along(tmp_path: Path) -> None:
    with _supervised(tmp_path, f"echo $$ > {tmp_path}/child; exec sleep 1000") as process:
        child = _pid(tmp_path / "child")
        process.kill()
        process.wait()
        _wait_for(lambda: not _lives(child))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_dead_child_is_restarted_and_its_group_is_gone(tmp_path: Path) -> None:
    command = f"""
        sleep 1000 & echo $! >> {tmp_path}/grandchildren
        echo '{{"level": "error", "message": "I am unwell"}}'
        echo $$ > {tmp_path}/child.$(wc -l < {tmp_path}/grandchildren); wait"""
    with _supervised(tmp_path, command) as process:
        first = _pid(tmp_path / "child.1")
        os.kill(first, signal.SIGKILL)
        second = _pid(tmp_path / "child.2")
        grandchild = int((tmp_path / "grandchildren").read_text().split()[0])
        assert second != first
        assert not _lives(grandchild)
        process.send_signal(signal.SIGTERM)
        output = _output(process)
    assert "The worker was ended by signal 9; it is started again in 1 s.\n" in output
    assert "The worker was started again." in output
    assert "worker: error: I am unwell" in output
    ends = [line.split()[1:] for line in output.splitlines() if line.startswith("ended ")]
    assert [asked for _, asked in ends] == ["False", "True"]  # its death, and the end
    assert ends[0][0] != ends[1][0]  # every start has a name of its own


def test_child_that_can_never_start_ends_all(tmp_path: Path) -> None:
    with _supervised(tmp_path, "echo 'Error: The weights are broken.'; exit 11") as process:
        output = _output(process)
    assert "The worker ended with status 11. It said: Error: The weights are broken." in output
    assert "code 11" in output
