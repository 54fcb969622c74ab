"""Mounts, watch modes, identities, and the folders that must not be worked with."""

import errno
import os
from pathlib import Path

import pytest

from daemon import roots
from daemon.roots import check_roots, identity, root_faults, watch_mode
from worker import mounts
from worker.errors import OutputUnwritable, RootMissing, RootsOverlap
from worker.mounts import Mount, mount_of, mounts_below, parse_mounts
from worker.settings import RootSettings, Settings

MOUNTINFO = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
22 27 0:21 / /proc rw,relatime - proc proc rw
40 27 0:50 / /mnt/nas rw,relatime shared:1 - nfs4 nas:/export rw,vers=4.2
41 27 0:51 / /mnt/My\040Scans rw,relatime - cifs //server/share rw
42 27 8:1 /scans /srv/bind rw,relatime - xfs /dev/sda1 rw
43 27 8:1 / /data rw,relatime - xfs /dev/sda1 rw
44 40 0:52 / /mnt/nas/deep rw,relatime master:3 - fuse.sshfs me@host: rw
45 27 0:53 / /mnt/nas/deep rw,relatime - tmpfs tmpfs rw
46 27 7:0 / /media/usb rw,relatime - fuseblk /dev/sdb1 rw
broken line
"""


def _root(path: str = "/x", **fields: object) -> RootSettings:
    return RootSettings.model_validate({"path": path, "output": "/y", **fields})


def _settings(folder: Path, *pairs: tuple[str, str], state: str = "state") -> Settings:
    pairs = pairs or (("scans", "colorized"),)
    made = [RootSettings(path=folder / source, output=folder / output) for source, output in pairs]
    return Settings(state_dir=folder / state, roots=tuple(made))


@pytest.mark.parametrize(
    ("path", "fs_type", "source"),
    [
        ("/home/me/scans", "ext4", "/dev/vda"),
        ("/mnt/nas/box 1", "nfs4", "nas:/export"),
        ("/mnt/nasty", "ext4", "/dev/vda"),
        ("/mnt/My Scans/a", "cifs", "//server/share"),
        ("/mnt/nas/deep/x", "tmpfs", "tmpfs"),  # mounted later, over the other
    ],
)
def test_mount_is_the_last_of_the_longest(path: str, fs_type: str, source: str) -> None:
    mount = mount_of(Path(path), MOUNTINFO)
    assert (mount.fs_type, mount.source) == (fs_type, source)


def test_every_readable_line_is_a_mount() -> None:
    assert len(parse_mounts(MOUNTINFO)) == 9


def test_the_kernels_own_table_is_read() -> None:
    assert mount_of(Path(__file__)).fs_type or not mounts.MOUNTINFO.exists()


@pytest.mark.parametrize(
    ("fs_type", "network", "mode"),
    [
        ("ext4", False, "events"),
        ("overlay", False, "events"),
        ("fuseblk", False, "scan"),
        ("nfs4", True, "scan"),
        ("cifs", True, "scan"),
        ("9p", True, "scan"),
        ("fuse.sshfs", True, "scan"),
        ("fuse", True, "scan"),
        ("vboxsf", True, "scan"),
        ("something_new", False, "scan"),
        ("", False, "scan"),
    ],
)
def test_mode_follows_the_file_system(fs_type: str, network: bool, mode: str) -> None:
    mount = Mount(point="/", source="s", fs_type=fs_type)
    assert mount.is_network is network
    assert watch_mode(_root(), mount) == mode
    assert watch_mode(_root(mode="events"), mount) == "events"
    assert watch_mode(_root(mode="scan"), mount) == "scan"


def test_settle_time_is_the_roots_own_or_that_of_what_lies_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(settle_s=5, settle_network_s=15)
    local, share = (Mount(point="/", source="s", fs_type=fs_type) for fs_type in ("ext4", "nfs4"))
    assert roots.settle_time_s(_root(), local, settings) == 5
    assert roots.settle_time_s(_root(), share, settings) == 15
    assert roots.settle_time_s(_root(settle_s=2), share, settings) == 2
    monkeypatch.setattr(roots, "mounts_below", lambda path: {b"nas": share})
    assert roots.settle_time_s(_root(), local, settings) == 15


def test_identity_is_of_the_folder_wherever_it_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    here, below = identity(tmp_path), identity(tmp_path / "sub")
    assert here == identity(tmp_path) and here.inode != below.inode and here.place != below.place
    with pytest.raises(OSError, match="No such file"):
        identity(tmp_path / "away")
    bound = f"42 27 8:1 /scans {tmp_path} rw - xfs /dev/sda1 rw\n"
    assert [identity(folder, bound).place for folder in (tmp_path, tmp_path / "sub")] == ["/scans", "/scans/sub"]


def test_identity_knows_what_is_mounted_in_folders_below(tmp_path: Path) -> None:
    line = "{} 1 0:40 / {} rw - tmpfs tmpfs rw\n"
    root, share = line.format(30, "/"), line.format(31, str(tmp_path / "a share").replace(" ", r"\040"))
    assert mounts_below(tmp_path, root + share + line.format(32, "/elsewhere")).keys() == {b"a share"}
    assert mounts_below(tmp_path, root + line.format(31, tmp_path)) == {}
    assert identity(tmp_path, root) != identity(tmp_path, root + share)


def test_good_folders_pass_and_the_output_is_made(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    settings = _settings(tmp_path)
    assert root_faults(settings) == []
    assert not (tmp_path / "colorized").exists()
    check_roots(settings)
    assert list((tmp_path / "colorized").iterdir()) == []
    assert list((tmp_path / "scans").iterdir()) == []


def test_a_missing_folder_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RootMissing, match=r"mkdir -p '.*/my scans'"):
        check_roots(_settings(tmp_path, ("my scans", "out")))
    assert not (tmp_path / "out").exists()


def test_one_missing_folder_holds_up_no_other(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    check_roots(_settings(tmp_path, ("a", "out a"), ("b", "out b")))
    assert (tmp_path / "out b").is_dir() and not (tmp_path / "out a").exists()
    check_roots(_settings(tmp_path, ("a", "share/out a"), ("b", "out b")))  # its output may be missing with it


def test_without_any_folder_the_first_is_named(tmp_path: Path) -> None:
    with pytest.raises(RootMissing, match="/a is not there"):
        check_roots(_settings(tmp_path, ("a", "out a"), ("b", "out b")))


def test_a_file_is_no_folder_whatever_else_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "b").mkdir()
    with pytest.raises(RootMissing, match="is a file"):
        check_roots(_settings(tmp_path, ("a", "out a"), ("b", "out b")))


def test_a_share_that_does_not_answer_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat

    def stat(path: object, **options: bool) -> os.stat_result:
        if str(path).startswith(f"{tmp_path}/a"):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return real(path, **options)  # type: ignore[call-overload, no-any-return]

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.setattr(os, "stat", stat)
    check_roots(_settings(tmp_path, ("a", "out a"), ("b", "out b")))
    with pytest.raises(RootMissing, match="not connected"):
        check_roots(_settings(tmp_path, ("a", "out a")))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "scans").write_text("")
    with pytest.raises(RootMissing, match="is a file"):
        check_roots(_settings(tmp_path))


@pytest.mark.parametrize(
    ("pairs", "state"),
    [
        ([("a", "a/out")], "state"),
        ([("a", "a")], "state"),
        ([("a/sub", "a")], "state"),
        ([("a", "out"), ("a/sub", "out2")], "state"),
        ([("a", "out"), ("b", "out")], "state"),
        ([("a", "out"), ("b", "out/sub")], "state"),
        ([("a", "b"), ("b", "out")], "state"),
        ([("a", "out")], "a/state"),
        ([("a", "out")], "out"),
        ([("a", "link_to_a/out")], "state"),
        ([("link_to_a", "a/sub/out")], "state"),
    ],
)
def test_folders_in_each_other_are_refused_untouched(tmp_path: Path, pairs: list[tuple[str, str]], state: str) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "link_to_a").symlink_to(tmp_path / "a")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RootsOverlap, match="lie in each other"):
        check_roots(_settings(tmp_path, *pairs, state=state))
    assert sorted(tmp_path.rglob("*")) == before


def test_neighbours_with_a_common_beginning_are_fine(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    check_roots(_settings(tmp_path, ("scans", "scans-colorized")))


def test_a_bind_mount_of_a_part_is_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")
    bound, data, other = (roots._place(Path(path)) for path in ("/srv/bind", "/data/scans", "/data/other"))
    assert roots._lies_in(roots._place(Path("/srv/bind/box")), data)
    assert roots._lies_in(roots._place(Path("/data/scans/box")), bound)
    assert not roots._lies_in(other, bound)


def test_an_output_without_a_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(OutputUnwritable, match=r"mkdir -p .*/away/out"):
        check_roots(_settings(tmp_path, ("scans", "away/out")))


def test_an_output_that_takes_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    (tmp_path / "scans").mkdir()
    (tmp_path / "colorized").mkdir()
    monkeypatch.setattr(roots.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputUnwritable, match="Read-only file system"):
        check_roots(_settings(tmp_path))


def test_all_faults_are_listed_for_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    faults = root_faults(_settings(tmp_path, ("a", "out"), ("b", "b/out")))
    assert [type(fault) for fault in faults] == [RootMissing, RootsOverlap]
