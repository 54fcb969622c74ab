"""How derivatives are written and coloured: the operator's choices, recorded with each."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from worker.settings import Settings

#: kinds that can be written, with the suffixes that fit them; the first is ours
SUFFIXES: Final[Mapping[str, tuple[bytes, ...]]] = {
    "tiff": (b".tif", b".tiff"), "png": (b".png",), "jpeg": (b".jpg", b".jpeg", b".jpe", b".jfif"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """The choices for one job."""

    kind: str = "same"  # same, tiff, png, jpeg
    depth: str = "same"  # same, 8, 16; a JPEG always has 8
    tiff_compression: str = "deflate"  # deflate, none, lzw, zstd
    jpeg_quality: int = 95
    strength: float = 1.0  # 0 gray .. 1 the model's colours
    saturation: float = 1.0
    temperature: float = 0.0  # -1 cooler .. 1 warmer
    tone: str = "drop"  # of a toned print: drop, or preserve (its tint is added to the colours)
    profile: str = ""  # path of an RGB profile to write in; sRGB without one
    digital_source_type: str = "compositeWithTrainedAlgorithmicMedia"
    threads: int = 2

    @property
    def words(self) -> str:
        """The controls, for the derivative's history."""
        controls = {"strength": self.strength, "saturation": self.saturation, "temperature": self.temperature}
        return ", ".join([*(f"{name} {value:g}" for name, value in controls.items()), f"tone {self.tone}"])

    def kind_for(self, scan_kind: str) -> str:
        """The kind written for a scan of that kind; TIFF where the scan's own cannot be written."""
        kind = scan_kind if self.kind == "same" else self.kind
        return kind if kind in SUFFIXES else "tiff"

    def depth_for(self, kind: str, bit_depth: int) -> int:
        """Bits per channel written."""
        if kind == "jpeg":
            return 8
        return bit_depth if self.depth == "same" else int(self.depth)

    def extension(self, scan_kind: str, source_suffix: bytes) -> bytes:
        """The derivative's suffix with its dot: the source's own where it fits the kind written."""
        suffixes = SUFFIXES[self.kind_for(scan_kind)]
        return source_suffix if source_suffix.lower() in suffixes else suffixes[0]


#: our settings' names for the fields that a root or a job may set for itself → the policy's names
_FIELDS: Final[Mapping[str, str]] = {
    "output_format": "kind", "output_depth": "depth", "tiff_compression": "tiff_compression",
    "jpeg_quality": "jpeg_quality", "output_profile": "profile", "strength": "strength", "saturation": "saturation",
    "temperature": "temperature", "tone": "tone",
}  # fmt: skip


def policy_for(settings: Settings, root: str = "", parameters: Mapping[str, Any] | None = None) -> Policy:
    """The choices for one job: its own, over those of its root, over those for all.

    Args:
        settings: those in force.
        root: the root's name.
        parameters: the job's own choices, by the settings' names.
    """
    own = next((watched for watched in settings.watched if watched.key == root), None)
    chosen: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        of_root = getattr(own, name) if own is not None else None
        chosen[field] = (parameters or {}).get(name, of_root if of_root is not None else getattr(settings, name))
    return Policy(digital_source_type=settings.digital_source_type, **chosen)
