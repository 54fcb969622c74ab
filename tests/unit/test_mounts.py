"""Is a mount the same share as before? Spelling does not matter, another server or path does."""

from pathlib import Path

import pytest

from worker.mounts import Mount, mount_of, mounts_below, same_share


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("cifs //nas/share", "cifs //nas/share/", True),
        ("cifs //nas/share", "cifs //NAS/Share", True),
        ("cifs //nas/share/box", "cifs //nas//share/box", True),
        ("cifs //nas.example/share", "cifs //nas.example./share", True),
        (r"cifs \\nas\share", "cifs //nas/share", True),
        ("cifs //nas/share", "smb3 //nas/share", True),
        ("nfs nas:/export", "nfs4 NAS:/export/", True),
        ("nfs4 nas:/", "nfs4 nas://", True),
        ("fuse.sshfs me@nas:/scans", "fuse.sshfs me@NAS:/scans/", True),
        ("cifs //nas/share", "cifs //nas/other", False),
        ("cifs //nas/share", "cifs //nas.example/share", False),  # an alias may be, or may not
        ("nfs4 nas:/export", "nfs4 nas:/Export", False),  # paths of NFS have case
        ("nfs4 nas:/export", "nfs4 nas:/export/box", False),
        ("nfs4 nas:/export", "cifs //nas/export", False),
        ("fuse.sshfs me@nas:/scans", "fuse.sshfs you@nas:/scans", False),
        ("ext4 /dev/sda1", "ext4 /dev/sda2", False),
        ("ext4 /dev/sda1", "ext4 /dev/SDA1", False),
        ("ext4 ", "ext4 ", True),
        ("cifs //", "cifs //", True),
    ],
)
def test_only_what_is_spelt_otherwise_is_the_same_share(one: str, other: str, same: bool) -> None:
    (kind, _, source), (other_kind, _, other_source) = one.partition(" "), other.partition(" ")
    mounts = [
        Mount(point="/mnt", fs_type=kind, source=source),
        Mount(point="/mnt", fs_type=other_kind, source=other_source),
    ]
    assert same_share(*mounts) is same
    assert same_share(*reversed(mounts)) is same


@pytest.mark.parametrize("name", ["写真\u3000箱", "My\u00a0Disk", "a\u2028b", "a\x0bb", "a\x85b", "a\rb"])
def test_a_mount_point_of_any_name_is_found(name: str) -> None:
    """The kernel escapes the blanks that part its fields; Python calls more characters blanks."""
    info = f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n40 22 0:50 / /srv/{name} rw shared:1 - nfs4 nas:/scans rw\n"
    assert mount_of(Path("/srv") / name, info).fs_type == "nfs4"
    assert set(mounts_below(Path("/srv"), info)) == {name.encode()}
