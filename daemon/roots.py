"""Watched folders: what they lie on, how they are watched, and what makes a set of them impossible.

Nothing is ever written into a source root here; an output folder is created when only its last part is missing.
"""

import contextlib
import importlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from worker.answers import ask
from worker.db import Database
from worker.errors import OutputUnwritable, RootMissing, RootsOverlap, SetupError
from worker.meanings import in_words
from worker.mounts import UNKNOWN, Mount, is_within, mount_of, mounts_below
from worker.settings import CURATED_ROOT, RootSettings, Settings

Mode = Literal["events", "scan"]


@dataclass(frozen=True, kw_only=True)
class RootIdentity:
    """What tells a mounted share from the empty folder that it was mounted on; `worker.identity` compares two."""

    device: int
    inode: int
    source: str  # the mount's source
    place: str = ""  # inside its file system: the same wherever that is mounted
    mount_id: str = ""  # another one after every remount: says nothing about the folder, but watches are gone with it
    below: tuple[str, ...] = ()  # the same of what is mounted in folders of it, where no watch sees a share come or go


def watch_mode(root: RootSettings, mount: Mount) -> Mode:
    """How a root is watched: as its settings say, else by events where the file system reports every change."""
    if root.mode != "auto":
        return root.mode
    return "events" if mount.has_events else "scan"


def settle_time_s(root: RootSettings, mount: Mount, settings: Settings) -> float:
    """How long a file in this root has to be quiet before it is taken, in seconds; by the slowest that lies in it."""
    if root.settle_s:
        return root.settle_s
    below = dict[bytes, Mount]()
    with contextlib.suppress(TimeoutError):
        below = ask(root.path, partial(mounts_below, root.path))
    return settings.settle_network_s if any(it.is_network for it in (mount, *below.values())) else settings.settle_s


def identity(path: Path, mountinfo: str | None = None) -> RootIdentity:
    """The root's identity as it is now.

    Raises:
        OSError: the folder is not there or not reachable.
    """
    status = path.stat()
    mount, below = mount_of(path, mountinfo), mounts_below(path, mountinfo)
    return RootIdentity(
        device=status.st_dev, inode=status.st_ino, source=mount.source, place=_inside(mount, os.path.realpath(path)),
        mount_id=mount.mount_id, below=tuple(sorted(mount.mount_id for mount in below.values())),
    )  # fmt: skip


def root_faults(settings: Settings) -> list[SetupError]:
    """Everything that is wrong with the folders of these settings, for `doctor`; changes nothing."""
    faults: list[SetupError] = [fault for root in settings.all_roots if (fault := _source_fault(root.path))]
    faults += list(_overlaps(settings))
    return faults or [fault for root in settings.watched if (fault := _told_output_fault(root.output))]


def check_roots(settings: Settings) -> None:
    """Refuses folders that cannot be worked with; creates an output folder whose parent is there.

    A folder that is missing while others are there is no reason to let those wait: it is offline until it appears.
    Its output is not looked at, which may be missing with it. Nor is an output that does not answer: its root pauses.

    Raises:
        RootMissing: every watched folder is out of reach, or one is no folder.
        RootsOverlap: two of the source roots, outputs and the state directory lie in each other.
        OutputUnwritable: an output cannot be created or written.
    """
    faults = {root.key: fault for root in settings.all_roots if (fault := _source_fault(root.path))}
    there = [root for root in settings.watched if root.key not in faults]
    fatal = [fault for root in settings.all_roots if (fault := faults.get(root.key)) and _is_file(root.path)]
    for fault in [*fatal, *(() if there else faults.values()), *_overlaps(settings)]:
        raise fault
    for root in there:
        with contextlib.suppress(TimeoutError):
            if output_fault := _output_fault(root.output):
                raise output_fault
            ask(root.output, partial(root.output.mkdir, exist_ok=True))


def unfit(root: RootSettings, settings: Settings) -> SetupError | None:
    """What speaks against a root that has just appeared; makes its output folder, whose parent may have come with it.

    Whether an output that is there can be written is the workers' to find out: then jobs wait, and scans are recorded.
    """
    fault: SetupError | None = next(_overlaps(settings), None)
    if fault is not None or root.key == CURATED_ROOT:
        return fault
    try:
        if not is_folder(root.output):
            ask(root.output, root.output.mkdir)
    except TimeoutError:
        return None
    except OSError:
        return _told_output_fault(root.output)
    return None


def mount_in_time(path: Path) -> Mount:
    """What a folder lies on; `UNKNOWN` while it does not answer."""
    try:
        return ask(path, partial(mount_of, path))
    except TimeoutError:
        return UNKNOWN


def is_folder(path: Path) -> bool:
    """Whether a folder is there, and answers."""
    try:
        return ask(path, partial(os.path.isdir, path))
    except TimeoutError:
        return False


def refuse_unknown_models(settings: Settings, database: Database) -> None:
    """Refuses a root whose `model` is neither a version nor an alias.

    Raises:
        UnknownSetting: there is no such version.
    """
    if any(root.model for root in settings.watched):
        # by string, as the verbs are: the daemon itself knows nothing of models
        importlib.import_module("worker.pinned").refuse_unknown(settings, database)


def _source_fault(path: Path) -> SetupError | None:
    try:
        return ask(path, partial(_seen_fault, path))
    except (FileNotFoundError, NotADirectoryError):
        return RootMissing(
            f"The watched folder {path} is not there. Create it (mkdir -p {shlex.quote(str(path))}) or "
            "mount it, or name another with --inbox."
        )
    except OSError as error:  # a share whose server is gone, say
        return RootMissing(f"The watched folder {path} cannot be reached ({in_words(error)}). Mount it again.")


def _seen_fault(path: Path) -> SetupError | None:
    path.stat()
    if not os.path.isdir(path):
        return RootMissing(f"{path} is a file, not a folder. Name the folder to watch with --inbox.")
    if not os.access(path, os.R_OK | os.X_OK):
        return RootMissing(f"The watched folder {path} cannot be read. Grant this user read and search permission.")
    return None


def _is_file(path: Path) -> bool:
    try:
        return ask(path, partial(os.path.isfile, path))
    except TimeoutError:
        return False


def _told_output_fault(path: Path) -> SetupError | None:
    """The same as `_output_fault`, and that it does not answer."""
    try:
        return _output_fault(path)
    except TimeoutError as error:
        return _unwritable(path, error)


def _output_fault(path: Path) -> SetupError | None:
    """What is wrong with an output folder.

    Raises:
        NoAnswer: it does not say.
    """
    return ask(path, partial(_seen_output_fault, path))


def _seen_output_fault(path: Path) -> SetupError | None:
    """Writes a nameless file to find out, where the folder exists: permissions alone do not tell (quota, ro mount)."""
    if path.exists() and not path.is_dir():
        return OutputUnwritable(f"The output {path} is a file, not a folder. Name a folder with --output.")
    if not path.exists() and not path.parent.is_dir():
        return OutputUnwritable(
            f"The output folder {path} cannot be created because {path.parent} is not there. "
            f"Create it (mkdir -p {shlex.quote(str(path))}) or name another with --output."
        )
    probed = path if path.exists() else path.parent
    try:
        with tempfile.TemporaryFile(dir=probed, prefix=".photochrom-"):
            return None
    except OSError as error:
        return _unwritable(path, error)


def _unwritable(path: Path, error: OSError) -> SetupError:
    return OutputUnwritable(
        f"Nothing can be written to the output folder {path} ({in_words(error)}). Correct its "
        "permissions or the mount, or name another with --output."
    )


@dataclass(frozen=True)
class _Place:
    """Where a folder lies, by everything that tells: two folders may be one by any of it."""

    real: str
    numbers: tuple[int, int] | None = None  # device and inode; None: it is not there
    above: frozenset[tuple[int, int]] = frozenset()  # of itself and all folders above it
    device: str = ""
    inner: str = ""  # with the device: the same for all bind mounts of one folder


def _overlaps(settings: Settings) -> Iterator[RootsOverlap]:
    folders = [("the state directory", settings.state_dir)]
    for root in settings.watched:
        folders += [("the watched folder", root.path), ("the output folder", root.output)]
    if settings.curated_root:
        folders.append(("the curated folder", settings.curated_root.path))
    places = {folder: _place(folder) for _, folder in folders}
    for index, (kind, folder) in enumerate(folders):
        for other_kind, other in folders[:index]:
            if _lies_in(places[folder], places[other]) or _lies_in(places[other], places[folder]):
                yield RootsOverlap(
                    f"{kind.capitalize()} {folder} and {other_kind} {other} are the same or lie in each "
                    "other. Choose folders that lie side by side."
                )


def _lies_in(place: _Place, folder: _Place) -> bool:
    """Whether one is the other or below it, by real path, by device and inode, and through bind mounts."""
    if is_within(place.real, folder.real) or folder.numbers in place.above:
        return True
    return bool(place.device) and place.device == folder.device and is_within(place.inner, folder.inner)


def _place(folder: Path) -> _Place:
    """By name alone where it does not answer; it is asked again before it is watched."""
    try:
        return ask(folder, partial(_seen_place, folder))
    except TimeoutError:
        return _Place(os.path.abspath(folder))


def _seen_place(folder: Path) -> _Place:
    real = os.path.realpath(folder)
    above = (_numbers(level) for level in (Path(real), *Path(real).parents))
    mount = mount_of(Path(real))
    return _Place(real, _numbers(folder), frozenset(filter(None, above)), mount.device, _inside(mount, real))


def _numbers(path: Path) -> tuple[int, int] | None:
    """Device and inode; None for what is not there or cannot be reached."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _inside(mount: Mount, real: str) -> str:
    """The path inside a file system of what lies on a mount of it."""
    return os.path.normpath(os.path.join(mount.inner, os.path.relpath(real, mount.point)))
