"""`photochrom selftest` reports whatever a share refuses, and leaves nothing on it however it ends."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemon import selftest, share_trials
from daemon.cli import main
from worker.files import Stamp

#: everything but the trials of events, which take their time
QUICK = {"_events": lambda folder, own, settings: []}


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, trial in QUICK.items():
        monkeypatch.setattr(share_trials, name, trial)
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "a.png").write_bytes(b"1")
    return tmp_path / "share"


def _ask(share: Path) -> Result:
    return CliRunner().invoke(main, ["selftest", "--root", str(share), "--json"])


def _told(asked: Result) -> dict[str, tuple[bool | None, str]]:
    return {trial["what"]: (trial["works"], trial["says"]) for trial in json.loads(asked.stdout)}


def _left(share: Path) -> list[str]:
    return sorted(path.name for path in share.iterdir())


def test_what_the_share_refuses_is_a_finding(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "rename", refuse)
    asked = _ask(share)
    assert asked.exit_code == 6, asked.output
    assert _told(asked)["write, rename, read"] == (False, "the share refuses it: EPERM (Operation not permitted)")
    assert _told(asked)["locks"] == (True, "hold")  # it goes on
    assert _left(share) == ["a.png"]


def test_a_limit_on_the_size_of_files_is_a_finding(share: Path) -> None:
    program = (
        "import resource, sys\nfrom daemon import share_trials\nfrom daemon.cli import main\n"
        "share_trials._events = lambda *_: []\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, resource.RLIM_INFINITY))\n"
        "main(['selftest', '--root', sys.argv[1]])"
    )
    asked = subprocess.run([sys.executable, "-c", program, str(share)], capture_output=True, text=True, timeout=60)
    assert asked.returncode == 6, asked.stderr
    assert "FAILS   write, rename, read: the share refuses it: EFBIG (File too large)" in asked.stdout
    assert "FAILS   slow write: the share refuses it: EFBIG" in asked.stdout
    assert _left(share) == ["a.png"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(share: Path, number: signal.Signals) -> None:
    program = (
        "import sys, threading\nfrom daemon import share_trials\nfrom daemon.cli import main\n"
        "share_trials._events = lambda *_: (print('held', flush=True), threading.Event().wait())\n"
        "main(['selftest', '--root', sys.argv[1]])"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(share)], stdout=subprocess.PIPE, text=True) as asked:
        assert asked.stdout is not None and asked.stdout.readline() == "held\n"
        assert len(_left(share)) == 2
        asked.send_signal(number)
        asked.wait(60)
    assert asked.returncode != 0
    assert _left(share) == ["a.png"]


def test_what_a_killed_one_left_is_swept(share: Path) -> None:
    old, fresh, link = (share / f".photochrom-selftest-{digit * 8}" for digit in "012")
    for folder in (old, fresh, share / ".photochrom-selftest-mine", share / "elsewhere"):
        folder.mkdir()
        (folder / "canary").write_bytes(b"1")
    link.symlink_to(share / "elsewhere")
    for path in (old, share / ".photochrom-selftest-mine", share / "elsewhere"):
        os.utime(path, (0, 0))
    asked = _ask(share)
    assert asked.exit_code == 0 and _told(asked)["leftovers"][0] is True, asked.output
    assert _left(share) == sorted([fresh.name, link.name, ".photochrom-selftest-mine", "a.png", "elsewhere"])
    assert (share / "elsewhere" / "canary").exists()


def test_what_cannot_be_removed_is_said(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        if not _:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(selftest.shutil, "rmtree", refuse)
        asked = _ask(share)
    assert asked.exit_code == 0, asked.output
    (left,) = set(_left(share)) - {"a.png"}
    assert f"{left} could not be removed (EACCES: Permission denied). Remove it by hand" in asked.stderr
    shutil.rmtree(share / left)


def test_signals_mean_afterwards_what_they_meant_before(share: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    assert _ask(share).exit_code == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


def test_a_slow_write_is_seen_step_by_step(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _told(_ask(share))["slow write"] == (True, "settling waits for each of 4 steps")
    monkeypatch.setattr(share_trials.Stamp, "of", lambda status: Stamp(1, 1, 1, 1))  # a share that hides them
    works, says = _told(_ask(share))["slow write"]
    assert works is False and "may be taken too early" in says


@pytest.mark.parametrize(
    ("capabilities", "users", "sees"),
    [
        (1 << 28, "0 0 4294967295", True),
        (0, "0 0 4294967295", False),
        (1 << 27, "0 0 4294967295", False),
        (1 << 28, "0 100000 65536", False),  # root in a container without rights outside
    ],
)
def test_who_may_see_the_writers_of_others(tmp_path: Path, capabilities: int, users: str, sees: bool) -> None:
    (tmp_path / "status").write_text(f"Name:\tx\nCapPrm:\tffff\nCapEff:\t{capabilities:016x}\n")
    (tmp_path / "uid_map").write_text(f"         {users}\n")
    assert share_trials.sees_every_writer(tmp_path) is sees


def test_without_the_capability_it_promises_only_this_user_s_files(
    share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_trials, "sees_every_writer", lambda: False)
    assert "only for files of this user" in _told(_ask(share))["open for writing"][1]
