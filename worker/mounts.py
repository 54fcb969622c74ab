"""File systems: what a path lies on, and whether other machines can write there behind this kernel's back."""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
# fmt: off
#: every change made anywhere passes through this kernel, so that inotify sees it
EVENT_TYPES = frozenset({
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfsplus", "jfs", "msdos", "nilfs2", "ntfs", "ntfs3",
    "overlay", "ramfs", "reiserfs", "tmpfs", "ufs", "vfat", "xfs", "zfs",
})
#: another machine can change or lock these behind this kernel's back
NETWORK_TYPES = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fakeowner", "gfs", "gfs2", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs",
    "vmhgfs",
})
# fmt: on
#: types that name a version of one protocol; the same share may be mounted by another the next time
PROTOCOL = {"nfs4": "nfs", "smb2": "cifs", "smb3": "cifs"}
#: FUSE types that are a local disk after all
FUSE_LOCAL = frozenset({"fuseblk", "fuse.ntfs-3g", "fuse.exfat", "fuse.lxcfs"})


@dataclass(frozen=True, kw_only=True)
class Mount:
    """The file system that a path lies on, as `/proc/self/mountinfo` has it (proc(5)); empty strings: unknown."""

    point: str  # where it is mounted
    source: str  # /dev/sda1, server:/export, //server/share
    fs_type: str
    device: str = ""  # "major:minor"
    mount_id: str = ""  # another one at every mount, also of the same share
    inner: str = "/"  # the directory inside the file system that is mounted at `point`: differs in bind mounts

    @property
    def is_network(self) -> bool:
        """Whether another machine may write to it, and file locks are not to be trusted."""
        fuse = self.fs_type.startswith("fuse") and self.fs_type not in FUSE_LOCAL
        return fuse or self.fs_type in NETWORK_TYPES

    @property
    def has_events(self) -> bool:
        """Whether inotify sees every change. A type that we do not know is not trusted."""
        return self.fs_type in EVENT_TYPES


UNKNOWN = Mount(point="/", source="", fs_type="")


def parse_mounts(mountinfo: str) -> list[Mount]:
    r"""The lines of `/proc/self/mountinfo`, in the kernel's order; blanks in paths are written there as `\040`."""
    mounts = []
    # the kernel escapes blank, tab, line feed and backslash alone: other blanks are part of a name
    for line in mountinfo.split("\n"):
        head, separator, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if not separator or len(fields) < 5 or len(rest) < 2:
            continue
        inner, point, fs_type, source = (_unescaped(text) for text in (fields[3], fields[4], rest[0], rest[1]))
        mounts.append(
            Mount(point=point, source=source, fs_type=fs_type, device=fields[2], mount_id=fields[0], inner=inner)
        )
    return mounts


def mount_of(path: Path, mountinfo: str | None = None) -> Mount:
    """The mount that `path` (which need not exist) lies on: the longest mount point above it, the last one of equals.

    `mountinfo` is for tests; by default it is read from the kernel. Without it (macOS) the answer is `UNKNOWN`.
    """
    if mountinfo is None:
        try:
            mountinfo = os.fsdecode(MOUNTINFO.read_bytes())
        except OSError:
            return UNKNOWN
    real = os.path.realpath(path)
    above = [mount for mount in parse_mounts(mountinfo) if is_within(real, mount.point)]
    return max(reversed(above), key=lambda mount: len(mount.point), default=UNKNOWN)


def mounts_below(path: Path, mountinfo: str | None = None) -> dict[bytes, Mount]:
    """The file systems mounted below a folder now, by path below the folder; `mountinfo` as in `mount_of`."""
    if mountinfo is None:
        try:
            mountinfo = os.fsdecode(MOUNTINFO.read_bytes())
        except OSError:
            return {}
    real = os.path.realpath(path)
    below = [mount for mount in parse_mounts(mountinfo) if mount.point != real and is_within(mount.point, real)]
    return {os.fsencode(os.path.relpath(mount.point, real)): mount for mount in below}


def share_away(root: bytes, path: bytes, shares: Collection[bytes]) -> bytes | None:
    """The share that a path lies on when that is not mounted now, so that the absence of the path means nothing.

    A mount point that is no longer there, or has something in it, is taken for an ordinary folder.

    Args:
        root: the watched folder.
        path: below it.
        shares: folders below it that file systems were mounted on.
    """
    above = [share for share in shares if path == share or path.startswith(share + b"/")]
    there = mounts_below(Path(os.fsdecode(root))) if above else {}
    return next((share for share in above if share not in there and _is_empty(os.path.join(root, share))), None)


def _is_empty(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return False  # nothing can be mounted there again: gone for certain
    except OSError:
        return True


def same_share(one: Mount, other: Mount) -> bool:
    """Whether two mounts are of the same share or disk, however type and source are spelt.

    Slashes at the end and doubled ones mean nothing, nor does the case of letters in a server's name and in an SMB
    share, nor the version of the protocol. Whether two names (an alias, an address) are one server, nobody here can
    tell: they count as two.
    """
    kinds = [PROTOCOL.get(mount.fs_type, mount.fs_type) for mount in (one, other)]
    return kinds[0] == kinds[1] and _as_spelt_by_all(one.source) == _as_spelt_by_all(other.source)


def _as_spelt_by_all(source: str) -> str:
    if source.startswith(("//", "\\\\")):
        server, *below = [part for part in re.split(r"[/\\]+", source) if part] or [""]
        return "/".join(["//" + server.rstrip("."), *below]).casefold()
    server, colon, path = source.partition(":/")
    if not colon:
        return source
    user, at, host = server.rpartition("@")
    return f"{user}{at}{host.rstrip('.').casefold()}:/{'/'.join(filter(None, path.split('/')))}"


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def is_within(path: str, folder: str) -> bool:
    """Whether a real path is a folder or below it, by name alone."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
