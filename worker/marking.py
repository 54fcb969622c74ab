"""What every derivative says about itself: that its colours were made by a model, which one, and from which file.

Terms: IPTC digital source types (cv.iptc.org), IPTC Photo Metadata 2025.1 (AISystemUsed, AISystemVersionUsed).
"""

import dataclasses
from typing import Final

PRODUCT: Final = "Photochrom"
SOURCE_TYPES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a derivative comes from."""

    source_name: str
    source_sha256: str
    model_version: str
    weights_sha256: str
    job_id: str = ""

    @property
    def sentence(self) -> str:
        """For a person who opens the derivative."""
        return (
            f"Colours are inferred by AI ({PRODUCT}, model {self.model_version}), not recorded. "
            f"Lightness is that of the original: {self.source_name} (sha256 {self.source_sha256})."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """All that a derivative says about itself."""

    origin: Origin
    source_type: str  # IPTC's name of the digital source type
    words: str  # the parameters of the colouring, for its history
    profile: str = "sRGB"
    is_srgb: bool = True

    @property
    def exif_colour_space(self) -> int:
        """EXIF's number: sRGB is 1, all others are "uncalibrated"."""
        return 1 if self.is_srgb else 65535


def plain_text(value: str) -> str:
    """What XML cannot hold (control characters, the surrogates of undecodable names) becomes U+FFFD."""
    return "".join(c if (c >= " " or c in "\n\t") and not _unheard_of(c) else "\ufffd" for c in value)


def _unheard_of(character: str) -> bool:
    return "\ud800" <= character <= "\udfff" or character in "\ufffe\uffff"


def is_marked(xmp: bytes | None, version: str) -> bool:
    """Whether an XMP packet says that a model of that version made the colours."""
    names = (SOURCE_TYPES.encode(), b"AISystemUsed", b"AISystemVersionUsed", plain_text(version).encode())
    return xmp is not None and all(name in xmp for name in names)
