"""Versions on disk beyond the shipped one: a folder of immutable folders, and their way to another installation."""

import errno
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from model import registry
from model.registry import Version, WeightsError, open_version

#: a version's name: part of file names, command lines and derivatives' names
NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,39}")
#: what a version's folder may hold
FILES = frozenset({"config.json", "generator.npz", "discriminator.npz", "CARD.md"})


class Store:
    """The versions of one installation: its own below `root`, and those that shipped."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, name: str) -> Version:
        """A version by its name; the weights are not read yet.

        Raises:
            WeightsError: there is none of that name, or its record is broken or too new.
        """
        if not NAME.fullmatch(name):
            raise WeightsError(f"'{name}' cannot be a version's name; `photochrom models list` names them all.")
        for parent in (self.root, registry.SHIPPED):
            if (parent / name).is_dir():
                version = open_version(parent / name)
                if version.name != name:
                    raise WeightsError(f"{parent / name} holds version {version.name}; restore the folder.")
                return version
        raise WeightsError(f"There is no version '{name}' in {self.root}; `photochrom models list` names them all.")

    def names(self) -> list[str]:
        """All versions whose folders are there, sorted."""
        folders = [path for parent in (self.root, registry.SHIPPED) if parent.is_dir() for path in parent.iterdir()]
        return sorted({path.name for path in folders if path.is_dir() and NAME.fullmatch(path.name)})

    def keep(self, version: Version) -> None:
        """Copy a shipped version in, so that it outlives the upgrade that ships another. Does nothing if it is in.

        Raises:
            OSError: there is no room, or no right.
        """
        if (self.root / version.name).exists():
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".keep-") as partial:
            copy = Path(shutil.copytree(version.directory, Path(partial) / version.name))
            try:
                copy.rename(self.root / version.name)
            except OSError:
                if not (self.root / version.name).is_dir():  # else another process was first
                    raise

    def export(self, version: Version, file: Path) -> None:
        """Write a version as one tar file, complete or not at all.

        Raises:
            FileExistsError: the file is there already.
            OSError: it cannot be written.
        """
        if file.exists():
            raise FileExistsError(errno.EEXIST, "the file exists already", str(file))
        partial = file.with_name(f".{file.name}.partial")
        try:
            with tarfile.open(partial, "w") as archive:
                for path in sorted(version.directory.iterdir()):
                    if path.name in FILES:
                        archive.add(path, f"{version.name}/{path.name}", recursive=False)
            partial.rename(file)
        finally:
            partial.unlink(missing_ok=True)

    def take(self, file: Path, known: Mapping[str, str] = MappingProxyType({})) -> Version:
        """Unpack what `export` wrote on this or another installation. Nothing is executed, and no path leads out.

        Args:
            file: the tar file.
            known: sha256 of the weights of versions that are known here, by name, whether or not their folders are.

        Raises:
            WeightsError: it is no such file, its weights do not load, or the name is taken or stands for others.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".import-") as folder:
            name = _unpack(file, Path(folder))
            version = open_version(Path(folder) / name)
            if version.name != name:
                raise WeightsError(f"{file} holds a version {version.name} under the name {name}; export it again.")
            if name in self.names():
                raise WeightsError(f"There is a version {name} already; versions are never changed.")
            if known.get(name, version.weights_sha256) != version.weights_sha256:
                raise WeightsError(
                    f"{file} holds other weights than those that {name} is known by here; a version is never changed."
                )
            registry.load_generator(version)
            version.directory.rename(self.root / name)
        return open_version(self.root / name)


def _unpack(file: Path, folder: Path) -> str:
    """Unpack the known files of one version; its name."""
    try:
        with tarfile.open(file, "r:") as archive:
            members = archive.getmembers()
            names = {member.name.split("/")[0] for member in members}
            fits = all(m.isfile() and m.name.count("/") == 1 and m.name.split("/")[1] in FILES for m in members)
            if not fits or len(names) != 1 or not NAME.fullmatch(name := names.pop()):
                raise WeightsError(f"{file} is no exported version; make it with `photochrom models export`.")
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise WeightsError(f"{file} cannot be unpacked ({error}); export the version again.") from error
    return name
