"""Versions of the generator on disk: one folder each with `config.json` and fp16 weights, checked before they serve."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from model.config import ConfigError, architecture_from
from model.framing import STRIDE_PX, Framing

if TYPE_CHECKING:
    import keras

#: the versions that come with the product; the file CURRENT names the one that serves
SHIPPED = Path(__file__).parent / "weights"
#: of a version's folder; a folder of a newer format is refused, never half understood
FORMAT = 1


class WeightsError(ValueError):
    """A version's folder is missing, incomplete, changed, or made for another release."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """One version as its `config.json` describes it."""

    name: str
    directory: Path
    weights_sha256: str
    serve_size_px: int
    #: what ab is multiplied by after the net (and after the flip average)
    saturation: float
    #: the whole record: architecture, `framing`, `flip_average`, how it was trained
    config: dict[str, Any]

    @property
    def flip_average(self) -> bool:
        """Whether to serve the mean of the prediction and of the mirrored picture's."""
        return bool(self.config.get("flip_average", False))

    @property
    def framing(self) -> Framing:
        """How pictures are laid onto the net's input; versions without a record of it serve squares."""
        return "aspect" if self.config.get("framing", "square") == "aspect" else "square"

    def served(self, size_px: int, framing: Framing, flip_average: bool) -> "Version":
        """The same weights served in another way, for measuring; its saturation is not calibrated anew."""
        config = self.config | {"serve_size_px": size_px, "framing": framing, "flip_average": flip_average}
        return dataclasses.replace(self, serve_size_px=size_px, config=config)


def open_version(directory: Path) -> Version:
    """Read a version's record; the weights are not read yet.

    Raises:
        WeightsError: the folder has no readable `config.json`, or it lacks a field.
    """
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        _refuse_newer(path, config)
        version = Version(
            name=str(config["name"]),
            directory=directory,
            weights_sha256=str(config["weights"]["sha256"]),
            serve_size_px=int(config["serve_size_px"]),
            saturation=float(config["saturation"]),
            config=config,
        )
    except WeightsError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} does not describe a version ({error!r}); install the weights again.") from error
    sized = version.serve_size_px >= STRIDE_PX and version.serve_size_px % STRIDE_PX == 0
    if not sized or not 0 < version.saturation < 4 or config.get("framing", "square") not in get_args(Framing):
        raise WeightsError(
            f"{path} has a serving size, framing or saturation that no net can serve; install the weights again."
        )
    return version


def _refuse_newer(path: Path, config: dict[str, Any]) -> None:
    found = config.get("format", 1)
    if not isinstance(found, int) or found > FORMAT:
        raise WeightsError(
            f"{path} describes a version of format {found}; this program reads up to {FORMAT}. "
            "Upgrade Photochrom on this host, or promote an older version."
        )


def shipped() -> Version:
    """The version that comes with the product and serves by default.

    Raises:
        WeightsError: there is none, or its record is broken.
    """
    pointer = SHIPPED / "CURRENT"
    try:
        name = pointer.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise WeightsError(f"{pointer} is missing; install the product again.") from error
    return open_version(SHIPPED / name)


def weights_path(version: Version) -> Path:
    """The file of the version's generator."""
    return version.directory / str(version.config["weights"].get("file", "generator.npz"))


def load_generator(version: Version) -> "keras.Model":
    """Check the sha256 of the version's weights, build the net and fill it.

    Raises:
        WeightsError: the file is missing, not the one recorded, or does not fit the recorded architecture.
    """
    from model.networks import build_generator  # only here: listing versions needs no TensorFlow
    from model.weights_file import WeightsFileError, read_weights

    check_weights(version)
    try:
        generator = build_generator(architecture_from(version.config["architecture"]))
        read_weights(generator, weights_path(version))
    except (ConfigError, WeightsFileError, KeyError) as error:
        raise WeightsError(f"Version {version.name} cannot be loaded: {error}") from error
    return generator


def check_weights(version: Version) -> None:
    """Compare the weights on disk with the recorded sha256; loads nothing.

    Raises:
        WeightsError: the file is missing, or not the one recorded.
    """
    path = weights_path(version)
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"The weights {path} cannot be read ({error.strerror}); install them again.") from error
    if digest != version.weights_sha256:
        raise WeightsError(
            f"The weights {path} are not those that version {version.name} was published with "
            f"(sha256 {digest[:12]}…, recorded {version.weights_sha256[:12]}…); install them again."
        )


def check_discriminator(path: Path) -> None:
    """Compare a discriminator that lies in a version's folder with that version's record; loads nothing.

    A file that no record speaks of passes: one outside a version's folder, or of a version published before the
    discriminator's sha256 was recorded.

    Raises:
        WeightsError: it is not the one recorded.
    """
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
        recorded = config["discriminator"]
        file, wanted, digest = str(recorded["file"]), str(recorded["sha256"]), sha256_of(path)
    except (OSError, ValueError, KeyError, TypeError):
        return  # no record; and who reads the weights says what is wrong with a file that cannot be read
    if file == path.name and digest != wanted:
        raise WeightsError(
            f"The discriminator {path} is not the one that its version was published with "
            f"(sha256 {digest[:12]}…, recorded {wanted[:12]}…); install the version again."
        )


def sha256_of(path: Path) -> str:
    """The file's sha256 as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish_version(
    source: Path,
    directory: Path,
    *,
    name: str,
    saturation: float,
    config: dict[str, Any],
    discriminator: Path | None,
    card: str = "",
) -> Version:
    """Make a version's folder from weights that training left behind; the folder appears complete or not at all.

    Args:
        source: the generator's npz.
        directory: the folder to make; it must not exist.
        name: the version's name.
        saturation: as calibrated on the hold-out.
        config: further fields of the record: `architecture`, `serve_size_px`, `framing`, `flip_average`, `training`.
        discriminator: the discriminator's npz for a later warm start, or None.
        card: what to write into its CARD.md, for people; nothing for no card.

    Raises:
        WeightsError: the folder exists already, or the weights do not load.
    """
    if directory.exists():
        raise WeightsError(f"{directory} exists already; a version is never changed, choose another name.")
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        _fill(partial, source, {"format": FORMAT, "name": name, "saturation": saturation} | config, discriminator)
        if card:
            (partial / "CARD.md").write_text(card, encoding="utf-8")
        load_generator(open_version(partial))
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return open_version(directory)


def _fill(folder: Path, source: Path, record: dict[str, Any], discriminator: Path | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record = record | {"weights": _taken_in(folder, "generator.npz", source) | {"dtype": "float16"}}
    if discriminator:
        record = record | {"discriminator": _taken_in(folder, "discriminator.npz", discriminator)}
    (folder / "config.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _taken_in(folder: Path, name: str, source: Path) -> dict[str, str]:
    """Copy a file into the folder; what its record says of it."""
    shutil.copyfile(source, folder / name)
    return {"file": name, "sha256": sha256_of(folder / name)}
