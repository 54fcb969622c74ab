"""Settings of one watched folder: a `[[roots]]` table in photochrom.toml. The others are in `worker.settings`."""

import os
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

#: name of the curated folder among the roots; an operator's are named otherwise, or by absolute paths
CURATED_ROOT: Final = "(curated)"

WatchMode = Literal["auto", "events", "scan"]
OutputFormat = Literal["same", "tiff", "png", "jpeg"]


def absolute(path: Path) -> Path:
    """The path as every process finds it, whatever its current directory."""
    return Path(os.path.abspath(path.expanduser()))


class OutputPolicy(BaseModel):
    """How derivatives look: for all folders, or, where given, for one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output_format: OutputFormat | None = None
    output_depth: Literal["same", "8", "16"] | None = None
    tiff_compression: Literal["deflate", "none", "lzw", "zstd"] | None = None
    jpeg_quality: int | None = Field(default=None, ge=50, le=100)
    output_profile: str | None = None
    strength: float | None = Field(default=None, ge=0, le=1)
    saturation: float | None = Field(default=None, ge=0, le=3)
    temperature: float | None = Field(default=None, ge=-1, le=1)
    tone: Literal["drop", "preserve"] | None = None


class RootSettings(OutputPolicy):
    """One watched folder and where its derivatives go: a `[[roots]]` table in photochrom.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    output: Path
    name: str = ""
    mode: WatchMode = "auto"
    settle_s: float | None = Field(default=None, gt=0)
    priority: Literal["normal", "backlog"] = "normal"
    model: str = ""  # the version of the generator, or an alias, that its scans are bound to; empty: the champion
    batch: Literal["", "marker", "count", "manifest"] = ""  # what completes a folder right below this one
    batch_marker: str = Field(default="READY", pattern=r"^[^/]+$")
    batch_count: int = Field(default=0, ge=0, validate_default=True)
    batch_manifest: str = Field(default="SHA256SUMS", pattern=r"^[^/]+$")

    @field_validator("path", "output")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return absolute(value)

    @field_validator("batch_count")
    @classmethod
    def _counted(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("batch") == "count" and value < 1:
            raise PydanticCustomError("count", 'must be 1 or more where `batch` is "count"')
        return value

    @property
    def key(self) -> str:
        """The root's name in the database: its own, or its absolute path, as text that every database takes."""
        return self.name or os.fsencode(self.path).decode("utf-8", "backslashreplace")
