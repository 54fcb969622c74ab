"""What every derivative says about itself: that its colours were made by a model, which one, and from which file.

Terms: IPTC digital source types (cv.iptc.org), IPTC Photo Metadata 2025.1 (AISystemUsed, AISystemVersionUsed),
XMP part 1.
"""

import dataclasses
from typing import Final
from xml.sax.saxutils import escape

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


def packet(origin: Origin, digital_source_type: str) -> bytes:
    """An XMP packet with the marking alone, UTF-8."""
    fields = {
        "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPES + digital_source_type,
        "Iptc4xmpExt:AISystemUsed": PRODUCT,
        "Iptc4xmpExt:AISystemVersionUsed": origin.model_version,
        "photoshop:Instructions": origin.sentence,
        "xmp:CreatorTool": PRODUCT,
    }
    body = "\n".join(f"   <{name}>{_text(value)}</{name}>" for name, value in fields.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/">\n'
        f"{body}\n"
        "  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n"
        '<?xpacket end="w"?>'
    ).encode()


def _text(value: str) -> str:
    """XML text; what XML cannot hold (control characters, lone surrogates of undecodable names) becomes U+FFFD."""
    return escape("".join(c if c >= " " and not "\ud800" <= c <= "\udfff" else "\ufffd" for c in value))
