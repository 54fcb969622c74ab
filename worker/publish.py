"""A derivative appears under its name complete or not at all, and never over a file that is not ours.

A hidden temporary file in the target directory is written, synchronised and read back; then it gets its name by a
rename that refuses to replace. Directories are walked by descriptor without following links, so nothing is ever written
outside the output root. Paths are bytes: names need not be valid in any encoding.
"""

import dataclasses
import errno
import hashlib
import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from worker import room
from worker.errors import OutputBlocked
from worker.names import derivative_names, is_left_by_earlier_claim, is_temporary, temporary_name
from worker.output_folder import (
    blocks,
    open_directory,
    output_errors,
    published_mode,
    rename_without_replacing,
    sha256_of,
    sha256_of_name,
    synchronise,
    write_all,
)

__all__ = [
    "Planned", "Publication", "Published", "copy_into", "derivative_names", "output_errors",
    "rename_without_replacing", "sha256_of", "sweep_temporaries",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """The name a derivative will take and what its file holds: known before it is there."""

    path: bytes  # below the output root
    sha256: str
    size: int
    replaces: str | None  # sha256 of an older derivative of ours under the same name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A derivative that is there."""

    path: bytes  # below the output root
    sha256: str
    size: int


class Publication:
    """A temporary file beside its future name; a context manager that leaves nothing behind unless committed."""

    def __init__(
        self,
        output_root: bytes | str | Path,
        relative_directory: bytes,
        *,
        job_id: int | str,
        claim_no: int,
        mode: int | None = None,
        group: int | None = None,
    ) -> None:
        """Create the directories that are missing, and the temporary file.

        Args:
            output_root: an existing folder.
            relative_directory: below it, as bytes; may be empty.
            job_id: goes into the temporary name.
            claim_no: goes into the temporary name.
            mode: of the published file; None for 0666 without the umask.
            group: id of its group; None for the process's own.

        Raises:
            OutputFull: no room.
            OutputBlocked: no right, a link or a file where a directory should be, a path that leads out of the root.
        """
        self.output_root = os.fsencode(output_root)
        self._relative = relative_directory.strip(b"/")
        self._mode, self._group = mode, group
        self._temporary: bytes | None = temporary_name(job_id, claim_no)
        self.fd = -1
        with output_errors():
            self._directory = open_directory(self.output_root, self._relative, mode=mode)
            if claim_no > 1:
                _remove_left_behind(self._directory, job_id, claim_no)
            try:
                # readable by others only once it has its name; its mode is set by `commit`
                self.fd = os.open(
                    self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
                    dir_fd=self._directory,
                )  # fmt: skip
            except BaseException:
                os.close(self._directory)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.abort()

    def abort(self) -> None:
        """Remove the temporary file if it is still there, close everything."""
        if self.fd < 0:
            return
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
        os.close(self.fd)
        os.close(self._directory)
        self.fd = -1

    def plan(self, names: Sequence[bytes], *, replaces: Collection[str] = ()) -> Planned:
        """Bring the file to the disk and choose its name; nothing is visible yet.

        Args:
            names: candidates in order, from `derivative_names`; all in this publication's directory.
            replaces: sha256 of files of ours that may be replaced.

        Raises:
            OutputFull: the disk filled up at the last moment.
            OutputBlocked: every name is taken by a file that is not ours.
        """
        with output_errors():
            os.fsync(self.fd)
            digest = sha256_of(self.fd)
            size = os.fstat(self.fd).st_size
            name, there = self._free(names, replaces)  # equal bytes may be another scan's: a copy of the same
        return Planned(path=name, sha256=digest, size=size, replaces=there)

    def look(self, names: Sequence[bytes], *, replaces: Collection[str] = ()) -> bytes:
        """The name that it will get, as things are: asked before anything is computed for it; see `plan`."""
        with output_errors():
            return self._free(names, replaces)[0]

    def _free(self, names: Sequence[bytes], ours: Collection[str]) -> tuple[bytes, str | None]:
        for name in names:
            there = sha256_of_name(self._directory, self._base(name))
            if there is None or there in ours:
                return name, there
        raise OutputBlocked(
            f"Every name for the derivative is taken by another file ({os.fsdecode(names[0])!r}). "
            "Move that file away; the job goes on by itself."
        )

    def commit(self, planned: Planned, *, replaces: Collection[str] = ()) -> Published:
        """Give the file its name, and bring the directory to the disk.

        Args:
            planned: from `plan`.
            replaces: as there; an existing file is looked at again.

        Raises:
            OutputBlocked: a file that is not ours has taken the name since, or the directory was moved; plan again.
            OutputFull: no room for the directory's entry.
        """
        if self._temporary is None:
            raise ValueError("this publication has been committed already")
        base = self._base(planned.path)
        with output_errors():
            self._refuse_moved()
            os.fchmod(self.fd, published_mode() if self._mode is None else self._mode)
            if self._group is not None:
                os.fchown(self.fd, -1, self._group)
            os.fsync(self.fd)
            there = sha256_of_name(self._directory, base)
            if there is not None and (there == planned.sha256 or there in replaces):
                os.rename(self._temporary, base, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            else:
                rename_without_replacing(self._directory, self._temporary, base)
            self._temporary = None
            synchronise(self._directory)
        return Published(path=planned.path, sha256=planned.sha256, size=planned.size)

    def _refuse_moved(self) -> None:
        """The directory that we hold must still be where the path leads, or the row would name another file."""
        now = open_directory(self.output_root, self._relative, create=False)
        try:
            if not os.path.samestat(os.fstat(now), os.fstat(self._directory)):
                raise FileNotFoundError(errno.ENOENT, "the output folder was moved away meanwhile")
        finally:
            os.close(now)

    def _base(self, path: bytes) -> bytes:
        directory, _, base = path.rpartition(b"/")
        if directory != self._relative or base in (b"", b".", b".."):
            raise ValueError(f"{path!r} does not lie in {self._relative!r}")
        return base


def copy_into(
    publication: Publication, output_root: bytes | str | Path, path: bytes, *, sha256: str, spared_bytes: int = 0
) -> bool:
    """Fill a publication with an existing derivative's bytes.

    Args:
        publication: fresh; plan and commit it afterwards.
        output_root: of the existing derivative.
        path: of it, below that root.
        sha256: that it must have.
        spared_bytes: to stay free on the disk.

    Returns:
        False when it is not there any more, or not the same any more; then the publication is empty again.

    Raises:
        OutputFull: no room.
        OutputBlocked: the copy cannot be written.
    """
    directory, _, base = path.rpartition(b"/")
    try:
        parent = open_directory(os.fsencode(output_root), directory, create=False)
    except OSError:
        return False
    try:
        source = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
    except OSError:
        return False
    finally:
        os.close(parent)
    try:
        room.refuse_without_room(publication.fd, os.fstat(source).st_size, spared_bytes)
        digest = hashlib.sha256()
        with output_errors():
            for block in blocks(source):
                digest.update(block)
                write_all(publication.fd, block)
            if digest.hexdigest() != sha256:
                os.ftruncate(publication.fd, 0)
                os.lseek(publication.fd, 0, os.SEEK_SET)
                return False
    finally:
        os.close(source)
    return True


def remove_left_behind(output_root: bytes, relative_directory: bytes, *, job_id: int | str, claim_no: int) -> None:
    """Remove what a job's dead workers left half-written; nothing happens where that cannot be done.

    Args:
        output_root: of the job's root.
        relative_directory: of its scan.
        job_id: of the job, or another owner's word.
        claim_no: claims below this one are void.
    """
    with suppress(OSError):
        directory = open_directory(output_root, relative_directory.strip(b"/"), create=False)
        try:
            _remove_left_behind(directory, job_id, claim_no)
        finally:
            os.close(directory)


def _remove_left_behind(directory: int, job_id: int | str, claim_no: int) -> None:
    """Remove what this job's dead workers left half-written here; if one of them lives after all, it is fenced."""
    with suppress(OSError):
        for name in map(os.fsencode, os.listdir(directory)):
            if is_left_by_earlier_claim(name, job_id, claim_no):
                os.unlink(name, dir_fd=directory)


def sweep_temporaries(output_root: bytes | str | Path, *, older_than_s: float) -> list[bytes]:
    """Remove temporary files that dead workers left; links are not followed, nothing else is touched.

    Args:
        output_root: where to look.
        older_than_s: by their last change, so that a living worker's file stays.

    Returns:
        The paths removed, below the root.
    """
    removed = list[bytes]()
    limit = time.time() - older_than_s
    try:
        root = os.open(os.fsencode(output_root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return removed
    try:
        # by descriptor: a directory that a link replaces in the middle leads nowhere else
        for directory, _, files, descriptor in os.fwalk(b".", dir_fd=root):
            for name in filter(is_temporary, files):
                with suppress(OSError):
                    if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime <= limit:
                        os.unlink(name, dir_fd=descriptor)
                        removed.append(os.path.normpath(os.path.join(directory, name)))
    finally:
        os.close(root)
    return removed
