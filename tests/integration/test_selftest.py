"""`photochrom selftest` reports whatever a share refuses, and leaves nothing on it however it ends."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemon import selftest, share_trials
from daemon.cli import main
from worker.files import Stamp
from worker.mounts import Mount

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


#: a selftest that stays in the middle; signals are not ignored, even where whoever runs the tests ignores them
HELD = """
import signal, sys, threading
from daemon import share_trials
from daemon.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
share_trials._events = lambda *_: (print('held', flush=True), threading.Event().wait())
main(['selftest', '--root', sys.argv[1]])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(share: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", HELD, str(share)], stdout=subprocess.PIPE, text=True) as asked:
        assert asked.stdout is not None and asked.stdout.readline() == "held\n"
        assert len(_left(share)) == 2
        asked.send_signal(number)
        try:
            asked.wait(60)
        finally:
            asked.kill()
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
    with selftest._locked(fresh) as ours:  # its selftest is under way
        assert ours
        asked = _ask(share)
    assert asked.exit_code == 0, asked.output
    told = {trial["says"]: trial["works"] for trial in json.loads(asked.stdout) if trial["what"] == "leftovers"}
    assert [works for says, works in told.items() if says.startswith(old.name)] == [True]
    assert [works for says, works in told.items() if says.startswith(fresh.name)] == [None]
    assert _left(share) == sorted([fresh.name, link.name, ".photochrom-selftest-mine", "a.png", "elsewhere"])
    assert (share / "elsewhere" / "canary").exists()


def test_a_killed_one_is_cleaned_up_by_the_next(share: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HELD, str(share)], stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == "held\n"
        (left,) = set(_left(share)) - {"a.png"}
        works, says = _told(_ask(share))["leftovers"]
        assert works is None and says.startswith(f"{left} is another selftest's") and left in _left(share)
        killed.kill()
    assert _told(_ask(share))["leftovers"] == (True, f"{left} of a selftest that was killed is removed")
    assert _left(share) == ["a.png"]


def test_on_a_share_of_several_hosts_no_lock_tells_that_a_selftest_was_killed(
    share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (share / ".photochrom-selftest-00000000").mkdir()
    nfs = Mount(point="/", source="nas:/a", fs_type="nfs4")
    with monkeypatch.context() as patched:
        patched.setattr(selftest, "mount_of", lambda path: nfs)
        assert _told(_ask(share))["leftovers"][0] is None
    assert _told(_ask(share))["leftovers"][0] is True


def test_a_full_share_is_not_called_unfit(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    asked = _ask(share)
    assert asked.exit_code == 1, asked.output
    works, says = _told(asked)["write, rename, read"]
    assert works is None and says.startswith("the share is full: ENOSPC")


@pytest.mark.parametrize("where", ["share", "share/box", "."])
def test_a_folder_that_overlaps_with_what_is_written_is_no_root(
    share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("PHOTOCHROM_OUTPUT", str(share))
    (share / "box").mkdir()
    asked = _ask(tmp_path / where)
    assert asked.exit_code == 6 and _told(asked)["place"][0] is False, asked.output
    assert f"it and the output folder {share} lie in each other" in _told(asked)["place"][1]
    (tmp_path / "beside").mkdir()
    assert "place" not in _told(_ask(tmp_path / "beside"))


#: somebody who is not root, whom nothing stops; what it needs is loaded before
AS_NOBODY = """
import os, pwd, sys
from daemon import cli, selftest

if os.getuid() == 0:
    os.setgroups([])
    os.setuid(pwd.getpwnam("nobody").pw_uid)
cli.main(["selftest", "--root", sys.argv[1]])
"""


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_folder_that_may_not_be_listed_is_told_in_a_line(below: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are for their owner only
        Path(folder).chmod(0o755)
        (Path(folder) / "closed").mkdir(mode=0o300 if os.getuid() else 0o700)
        asked = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, f"{folder}/closed{below}"], cwd="/", env={**os.environ, "HOME": "/"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert asked.returncode == 6, asked.stderr
    if os.getuid() == 0:
        assert "cannot be listed (EACCES: Permission denied), so it cannot be watched" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1


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
