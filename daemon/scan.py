"""Looking at a watched folder: which regular files are there now, directory by directory. Nothing is written."""

import dataclasses
import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from typing import Final

from daemon.ignoring import Ignored, by_file
from worker.files import Stamp
from worker.meanings import in_words

#: names that are never scans, of files and of directories (case does not matter)
IGNORED_NAMES: Final = (
    ".*",  # hidden: .DS_Store, ._*, .nfs*, .smbdelete*, .fuse_hidden*, rsync's and our own temporary files
    "thumbs.db",
    "desktop.ini",
    "@eadir",  # Synology's thumbnails
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "~$*",
    "*~",
    "*.part",
    "*.partial",
    "*.filepart",
    "*.crdownload",
    "*.download",
    "*.tmp",
    "*.temp",
    "*.swp",
    "*.lock",
)

#: longest path below a root: PostgreSQL keeps none of more than 2,704 bytes in an index, with the root's name; one more
#: name than this has room
LONGEST_PATH_BYTES: Final = 2000


@dataclasses.dataclass
class Listing:
    """One directory, below a root.

    Attributes:
        directory: below the root; b"" for the root itself.
        files: path below the root → stamp, regular files only.
        subdirectories: paths below the root.
        blocked: path below the root → why it cannot be looked at; whether it is a file or a folder, nobody can tell.
        complete: False when it could not be read to its end; then nothing may be concluded from what is missing.
        error: why not.
        gone: whether it is the root, and is not there at all.
    """

    directory: bytes
    files: dict[bytes, Stamp] = dataclasses.field(default_factory=dict)
    subdirectories: list[bytes] = dataclasses.field(default_factory=list)
    blocked: dict[bytes, str] = dataclasses.field(default_factory=dict)
    complete: bool = True
    error: str = ""
    gone: bool = False

    def lacks(self, path: bytes, *, blocked: bool) -> bool:
        """Whether a recorded path of this directory is certainly not there.

        Args:
            path: below the root.
            blocked: recorded as such: it may be a folder, which could not be listed then (the root's lies in itself).
        """
        folder = blocked and (path == self.directory or path in self.subdirectories)
        return self.complete and path not in self.files and path not in self.blocked and not folder


def ignored_by(name: bytes) -> str | None:
    """The pattern by which a file or directory name is ignored, if any."""
    folded = os.fsdecode(name).casefold()
    return next((pattern for pattern in IGNORED_NAMES if fnmatch.fnmatchcase(folded, pattern)), None)


def ignored_path(path: bytes, root: bytes = b"", *, directory: bool = False) -> str | None:
    """The pattern by which a path below a root, or a directory on the way to it, is ignored.

    Args:
        path: below the root.
        root: where `.photochromignore` files may lie; empty: only names are looked at.
        directory: whether the path is one.
    """
    by_name = next((pattern for name in path.split(b"/") if (pattern := ignored_by(name))), None)
    return by_name or (by_file(root, path, directory=directory) if root and path else None)


def list_directory(root: bytes, directory: bytes) -> Listing:
    """Look at one directory. Links are not followed; fifos, sockets and devices are not looked at.

    A directory that is gone is complete and empty.
    """
    listing = Listing(directory)
    if _by_link(root, directory):
        return listing
    try:
        with os.scandir(os.path.join(root, directory)) as entries:
            rules = Ignored(root, directory)
            for entry in entries:
                if not ignored_by(entry.name) and not _is_too_long(listing, entry.name, rules):
                    _note(listing, entry, rules)
    except (FileNotFoundError, NotADirectoryError):
        listing.gone = directory == b""  # another matter than a folder of it
        listing.complete, listing.error = not listing.gone, os.strerror(errno.ENOENT) if listing.gone else ""
    except OSError as error:
        listing.complete, listing.error = False, in_words(error)
    return listing


def is_gone(root: bytes, directory: bytes) -> bool:
    """Whether there is certainly no such directory below a root; False while it only cannot be looked at."""
    try:
        status = os.stat(os.path.join(root, directory))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return not stat.S_ISDIR(status.st_mode) or _by_link(root, directory)


def is_out_of_sight(root: bytes, directory: bytes, waits: bool) -> bool:
    """Whether a directory is gone, or ignored though a file in it waits: for ever, as no look goes there any more."""
    ignored = waits and directory and ignored_path(directory, root, directory=True)
    return bool(ignored) or is_gone(root, directory)


def left_alone(root: bytes, path: bytes) -> str | None:
    """The pattern by which a file that is there is ignored."""
    return ignored_path(path, root) if is_file(root, path) else None


def is_file(root: bytes, path: bytes) -> bool:
    """Whether there is a regular file below a root, and no link on the way to it."""
    try:
        status = os.lstat(os.path.join(root, path))
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and not _by_link(root, os.path.dirname(path))


def _by_link(root: bytes, directory: bytes) -> bool:
    """Whether a link lies on the way from the root (which may be reached by one) to a directory below it."""
    straight = os.path.join(os.path.realpath(root), directory) if directory else os.path.realpath(root)
    return os.path.realpath(os.path.join(root, directory)) != straight


def _is_too_long(listing: Listing, name: bytes, rules: Ignored) -> bool:
    """Whether the record has no room for a path; nor is looked at what lies in a folder of that name."""
    path = os.path.join(listing.directory, name)
    too_long = len(path) > LONGEST_PATH_BYTES
    if too_long and not rules.by(path, directory=True):
        listing.blocked[path] = f"its path has {len(path)} bytes, and {LONGEST_PATH_BYTES} are allowed"
    return too_long


def _note(listing: Listing, entry: os.DirEntry[bytes], rules: Ignored) -> None:
    path = os.path.join(listing.directory, entry.name)
    try:
        is_directory = entry.is_dir(follow_symlinks=False)
        if rules.by(path, directory=is_directory):
            return
        if is_directory:
            listing.subdirectories.append(path)
            return
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return  # it went while we looked
    except OSError as error:  # of this entry alone: the others are there all the same
        if not rules.by(path, directory=False):
            listing.blocked[path] = in_words(error)
        return
    if stat.S_ISREG(status.st_mode):
        listing.files[path] = Stamp.of(status)


def walk(root: bytes, directory: bytes = b"") -> Iterator[Listing]:
    """Every directory from here down, parents first; memory grows with depth and width, not with the count of files."""
    pending = [directory]
    while pending:
        listing = list_directory(root, pending.pop())
        yield listing
        pending.extend(sorted(listing.subdirectories, reverse=True))
