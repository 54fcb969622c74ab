"""All settings, from the command line, the environment (`PHOTOCHROM_*`) and `photochrom.toml`, in that order.

Only entry points read settings; below them, values are passed. Those of one watched folder are in
`worker.root_settings`, and are imported from here like all others.
"""

import difflib
import hashlib
import math
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from worker.errors import UnknownSetting
from worker.root_settings import CURATED_ROOT, OutputFormat, RootSettings, absolute

__all__ = [
    "CURATED_ROOT", "NOT_SETTINGS", "PREFIX", "SOCKET_PATH_MAX_BYTES", "TRAINER", "RootSettings", "Settings",
    "broker_socket", "choose", "config_file", "load",
]  # fmt: skip

PREFIX = "PHOTOCHROM_"
#: names in the environment that are no settings: the file to read, test faults, a worker's name from its supervisor
NOT_SETTINGS = frozenset({"PHOTOCHROM_CONFIG", "PHOTOCHROM_FAULT", "PHOTOCHROM_WORKER", "PHOTOCHROM_TRAINER"})
#: set in a trainer's processes, which must not load anything to colour with
TRAINER = "PHOTOCHROM_TRAINER"
#: a unix socket's path may have 107 bytes on Linux and 103 on macOS
SOCKET_PATH_MAX_BYTES = 100


class Settings(BaseSettings):
    """Every setting with its default. Unknown names are refused."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    state_dir: Path = Field(Path(".photochrom"), description="database, broker, logs of this installation")
    inbox: Path = Field(Path("scans"), description="watched folder, when no [[roots]] are given")
    output: Path = Field(Path("colorized"), description="where the derivatives of `inbox` go")
    roots: tuple[RootSettings, ...] = Field((), description="watched folders with settings of their own")
    database_url: str = Field("", description="any SQLAlchemy URL; empty: SQLite in the state directory")
    broker_url: str = Field("", description="any Redis or Valkey URL; empty: the embedded broker")

    scan_interval_s: float = Field(60, gt=0, description="a full look at every root, whatever events say")
    settle_s: float = Field(5, gt=0, description="a file is settled when quiet for so long, on local disks")
    settle_network_s: float = Field(15, gt=0, description="the same on network file systems")
    lease_s: float = Field(20, gt=1, description="a claim not renewed for so long is void")
    heartbeat_s: float = Field(5, gt=0, description="how often a claim is renewed")
    sweep_s: float = Field(5, gt=0, description="how often void claims are looked for")
    max_failures: int = Field(3, ge=1, description="strikes for errors before a scan is quarantined")
    max_lost: int = Field(5, ge=1, description="strikes for lost workers before a scan is quarantined")
    retry_s: float = Field(30, gt=0, description="first back-off after an error; doubles with each strike")
    wait_s: float = Field(10, gt=0, description="first pause after a full disk or an unreadable folder; grows to 40 s")
    min_free_mib: int = Field(256, ge=0, description="free space to keep on disks: folders pause before it is used")
    in_flight: int = Field(64, ge=1, description="most jobs that are with broker and workers; the rest waits")

    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="where the net runs")
    worker_processes: int = Field(1, ge=1, description="colouring processes; one per GPU, or one per few cores")
    job_limit_s: float = Field(900, gt=0, description="a job that takes longer is ended and counted as lost")
    job_memory_mib: int = Field(0, ge=0, description="memory for one scan; 0: half of the machine's")
    max_megapixels: float = Field(1000, gt=0, description="larger scans are refused before anything is allocated")
    gray_curve: Literal["srgb", "gamma1.8", "gamma2.2", "linear"] = Field(
        "srgb", description="tone curve of gray scans that carry no profile"
    )
    output_format: OutputFormat = Field("same", description="file type of the derivatives")
    output_depth: Literal["same", "8", "16"] = Field("same", description="bits per channel of the derivatives")
    tiff_compression: Literal["deflate", "none", "lzw", "zstd"] = Field("deflate", description="of TIFF derivatives")
    jpeg_quality: int = Field(95, ge=50, le=100, description="quality of JPEG derivatives")
    output_profile: str = Field("", description="RGB profile (file) to write derivatives in; empty: sRGB")
    strength: float = Field(1, ge=0, le=1, description="of the colours: 0 gray, 1 as the model gives them")
    saturation: float = Field(1, ge=0, le=3, description="factor on the colours' chroma")
    temperature: float = Field(0, ge=-1, le=1, description="-1 cooler, 1 warmer")
    tone: Literal["drop", "preserve"] = Field("drop", description="what becomes of a toned print's own tint")
    digital_source_type: Literal["compositeWithTrainedAlgorithmicMedia", "algorithmicallyEnhanced"] = Field(
        "compositeWithTrainedAlgorithmicMedia", description="IPTC's term in every derivative"
    )
    sidecar: bool = Field(True, description="write a JSON file about each derivative beside it")
    output_mode: str = Field("", pattern=r"^(0?[0-7]{3})?$", description="octal mode of derivatives; empty: by umask")
    review_chroma: float = Field(1.0, ge=0, description="a derivative with a mean chroma below this goes to review")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    curated: str = Field("curated", description="colour photos to learn from; watched where it is there or is named")
    curated_least_px: int = Field(160, ge=64, description="short side that a curated photo must have")
    evaluation_photos: str = Field("", description="the operator's own photos to judge versions by; never learned from")
    models_dir: str = Field("", description="versions of the generator; shared by all hosts; empty: in state_dir")
    base_photos: str = Field("", description="photos that the generator knows, replayed so that it forgets nothing")
    retrain_least_new: int = Field(200, ge=1, description="new curated photos that make a retraining worth while")
    retrain_minutes: float = Field(60, gt=0, description="most training time of one run, minutes")
    retrain_steps: int = Field(3000, ge=1, description="most training steps of one run")
    retrain_batch: int = Field(16, ge=2, description="photos per training step; halved when memory does not suffice")
    retrain_px: int = Field(160, ge=64, multiple_of=32, description="side of the pictures that are learned from")
    retrain_checkpoint_s: float = Field(120, gt=0, description="training between two checkpoints")
    retrain_pauses_colouring: bool = Field(False, description="colour nothing while training, on a host with one GPU")
    gate_fidelity_worse: float = Field(0.01, ge=0, description="relative rise of ab-L1 that a version may show")
    gate_least_gain: float = Field(0.01, gt=0, description="relative gain in one measure that it must show")
    gate_slice_worse: float = Field(0.03, ge=0, description="relative rise of ab-L1 allowed in any slice")
    gate_slice_photos: int = Field(20, ge=2, description="smaller slices are only reported")
    gate_holdout_photos: int = Field(40, ge=2, description="least curated photos held out for a promotion by itself")
    gate_bias: float = Field(3.0, gt=0, description="mean difference in a or b that is allowed")
    gate_chroma_low: float = Field(0.75, gt=0, description="least chroma, as part of the originals'")
    gate_chroma_high: float = Field(1.15, gt=0, description="most chroma, as part of the originals'")
    retrain_cron: str = Field("", description="when to retrain (five cron fields); empty: never")

    @field_validator("retrain_cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        if value and not re.fullmatch(r"[0-9*/,\-a-zA-Z]+( [0-9*/,\-a-zA-Z]+){4}", value):
            raise ValueError('five cron fields, "minute hour day month weekday", are needed')
        return value

    @field_validator("state_dir", "inbox", "output")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return absolute(value)

    @field_validator("roots")
    @classmethod
    def _distinct(cls, roots: tuple[RootSettings, ...]) -> tuple[RootSettings, ...]:
        keys = [root.key for root in roots]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"two of them are called {sorted(twice)[0]!r}; names and paths must differ")
        return roots

    @field_validator("heartbeat_s")
    @classmethod
    def _renewed_in_time(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("lease_s", math.inf):
            raise ValueError("it must be shorter than lease_s, or every claim is void before it is renewed")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line over environment over file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())

    @property
    def watched(self) -> tuple[RootSettings, ...]:
        """The roots to watch: those of `[[roots]]`, else inbox → output."""
        return self.roots or (RootSettings(path=self.inbox, output=self.output),)

    @property
    def curated_root(self) -> RootSettings | None:
        """The curated folder as a root to watch; None where none was named and the default is not there."""
        if not self.curated or ("curated" not in self.model_fields_set and not os.path.isdir(self.curated)):
            return None
        path = Path(os.path.abspath(Path(self.curated).expanduser()))
        return RootSettings(path=path, output=path, name=CURATED_ROOT)

    @property
    def all_roots(self) -> tuple[RootSettings, ...]:
        """What is watched, the curated folder included."""
        return self.watched + ((self.curated_root,) if self.curated_root else ())

    @property
    def models(self) -> Path:
        """Where this installation's versions of the generator lie."""
        return Path(os.path.abspath(self.models_dir)) if self.models_dir else self.state_dir / "models"

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        file = str(self.state_dir / "photochrom.db").replace("%", "%25").replace("?", "%3F")
        return self.database_url or f"sqlite:///{file}"

    @property
    def broker(self) -> str:
        """The broker URL in force."""
        return self.broker_url or f"redis+socket://{quote(bytes(broker_socket(self.state_dir)))}?virtual_host=0"


def config_file() -> Path:
    """`$PHOTOCHROM_CONFIG`, else `photochrom.toml` in the current directory; need not exist."""
    return Path(os.environ.get("PHOTOCHROM_CONFIG") or "photochrom.toml")


def broker_socket(state_dir: Path) -> Path:
    """The embedded broker's unix socket: in the state directory, or where that path is too long in a short one.

    The short one is named after the user and the state directory, so every verb finds the same.
    """
    path = state_dir / "broker" / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]
    bases = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp")  # noqa: S108 - 0700 below, see broker
    sockets = [Path(base) / f"photochrom-{os.getuid()}-{name}" / "valkey.sock" for base in bases if base]
    return next((path for path in sockets if len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES), sockets[-1])


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings in force; `overrides` are those of the command line, `None` values are ignored.

    Raises:
        UnknownSetting: a name that no setting has, or a value out of range; the message says the nearest name.
    """
    _refuse_unknown_variables(os.environ)
    explicit = os.environ.get("PHOTOCHROM_CONFIG")
    if explicit and not Path(explicit).is_file():
        raise UnknownSetting(f"PHOTOCHROM_CONFIG names {explicit}, which is no file. Correct it or unset it.")
    try:
        return Settings(**{name: value for name, value in (overrides or {}).items() if value is not None})
    except ValidationError as error:
        raise UnknownSetting(_sentence(error)) from error
    except SettingsError as error:  # a list or table in the environment that is no JSON
        raise UnknownSetting(f"The environment cannot be read: {error}. Correct the variable; it is JSON.") from error
    except (ValueError, OSError) as error:  # TOML that does not parse
        raise UnknownSetting(f"{config_file()} cannot be read: {error}. Correct the file.") from error


def choose(**overrides: object) -> Settings:
    """The settings in force once `overrides` (those that are not None) are in the environment too.

    The environment is how they reach the processes that this one starts.

    Raises:
        UnknownSetting: as `load`.
    """
    for name, value in overrides.items():
        if value is not None:
            os.environ[PREFIX + name.upper()] = os.path.abspath(value) if isinstance(value, Path) else str(value)
    return load()


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """Extra environment variables are not refused by pydantic-settings itself."""
    known = {name.upper() for name in Settings.model_fields} | {name.removeprefix(PREFIX) for name in NOT_SETTINGS}
    for variable in environ:
        name = variable.upper().removeprefix(PREFIX)
        if name != variable.upper() and name not in known:
            advice = _nearest(name, known, PREFIX)
            raise UnknownSetting(f"There is no setting {variable}.{advice} `photochrom config` lists all.")


def _nearest(name: str, known: set[str], prefix: str = "") -> str:
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {prefix}{found[0]}?" if found else ""


def _sentence(error: ValidationError) -> str:
    """All faults of a settings file or environment in one line."""
    faults = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            fields = RootSettings.model_fields if "roots" in fault["loc"][:1] else Settings.model_fields
            faults.append(f"There is no setting {path}.{_nearest(str(fault['loc'][-1]), set(fields))}")
        else:
            faults.append(f"Setting {path}: {fault['msg']} (got {fault['input']!r}).")
    return " ".join(faults) + " `photochrom config` lists all settings."
