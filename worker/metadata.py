"""What the master says about itself goes over to the derivative; what is no longer true is put right.

Carried: EXIF (main, EXIF and GPS directories), IPTC-IIM, XMP. Left behind: the gray ICC profile, thumbnails, maker
notes (their offsets would point nowhere), Photoshop resources besides IPTC, digests of what has changed. Set: the AI
marking, colour mode and profile, new document and instance ids with `DerivedFrom`, one more step in `History`.
Sources: Exif 2.32, IPTC-IIM 4.2, XMP parts 1-2 (xmpMM, stRef, stEvt), MWG guidelines 2.0, IPTC Photo Metadata 2025.1.
"""

import dataclasses
import datetime
import struct
import threading
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

import exiv2
import numpy as np

from worker.header import Header
from worker.marking import PRODUCT, SOURCE_TYPES, Statement, plain_text
from worker.meanings import out_of_memory, wants_memory
from worker.tiff_tags import Directory, Read, Tag, TagsUnreadable, directories, sub_directory

#: main directory: names, make and model, software, dates, people, rights, ratings, Windows' descriptions
_MAIN_TAGS: Final = (
    269, 270, 271, 272, 285, 297, 305, 306, 315, 316, 337, 18246, 18249, 33432, 40091, 40092, 40093, 40094, 40095,
)  # fmt: skip
_EXIF_POINTER, _GPS_POINTER = 34665, 34853
#: of the EXIF directory, left behind: maker note, interoperability pointer, and what is set anew
_EXIF_DROPPED: Final = frozenset({37500, 40965, 40961, 40962, 40963})
#: ImageDescriptions by which programs note the layout of the pixels (tifffile, ImageJ, OME): no longer true
_LAYOUT_WORDS: Final = (b'{"shape":', b"shape=(", b"ImageJ=", b"<?xml", b"<OME")
_LONGEST_TAG: Final = 60_000
_JPEG_SEGMENT: Final = 65_000
#: XMP properties that describe the master's pixels or its container
_XMP_DROPPED: Final = (
    "Xmp.xmp.Thumbnails", "Xmp.photoshop.LegacyIPTCDigest", "Xmp.photoshop.ICCProfile", "Xmp.photoshop.ColorMode",
    "Xmp.photoshop.DocumentAncestors", "Xmp.tiff.ImageWidth", "Xmp.tiff.ImageLength", "Xmp.tiff.BitsPerSample",
    "Xmp.tiff.Compression", "Xmp.tiff.PhotometricInterpretation", "Xmp.tiff.SamplesPerPixel", "Xmp.tiff.NativeDigest",
    "Xmp.tiff.PlanarConfiguration", "Xmp.exif.NativeDigest", "Xmp.exif.ColorSpace", "Xmp.exif.PixelXDimension",
    "Xmp.exif.PixelYDimension", "Xmp.xmpMM.DerivedFrom", "Xmp.xmpMM.Manifest", "Xmp.xmpMM.Ingredients",
    "Xmp.iptcExt.DigitalSourceType", "Xmp.iptcExt.AISystemUsed", "Xmp.iptcExt.AISystemVersionUsed",
)  # fmt: skip
#: IPTC-IIM datasets as XMP, for kinds of file that have no place for IIM (IPTC Photo Metadata, mapping table)
_IPTC_AS_XMP: Final = {
    "Iptc.Application2.ObjectName": "Xmp.dc.title", "Iptc.Application2.Caption": "Xmp.dc.description",
    "Iptc.Application2.Byline": "Xmp.dc.creator", "Iptc.Application2.Copyright": "Xmp.dc.rights",
    "Iptc.Application2.Keywords": "Xmp.dc.subject", "Iptc.Application2.Credit": "Xmp.photoshop.Credit",
    "Iptc.Application2.Source": "Xmp.photoshop.Source", "Iptc.Application2.City": "Xmp.photoshop.City",
    "Iptc.Application2.CountryName": "Xmp.photoshop.Country", "Iptc.Application2.Headline": "Xmp.photoshop.Headline",
}  # fmt: skip
_NAMESPACE: Final = uuid.UUID("6d7f7f0e-3c1c-5b0e-9d55-0d4f0f1f8a41")
#: exiv2's XMP toolkit is not safe for threads
_toolkit = threading.Lock()
exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)  # what is wrong with a packet is said in a warning of the job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Carried:
    """Metadata for one derivative."""

    xmp: bytes
    iptc: bytes = b""
    tags: Mapping[int, Tag] = dataclasses.field(default_factory=dict)
    below: Mapping[int, Mapping[int, Tag]] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def carry(header: Header, read: Read, size: int, statement: Statement, *, kind: str) -> Carried:
    """The metadata of a derivative.

    Args:
        header: of the master's page.
        read: gives bytes of the master.
        size: of the master, bytes.
        statement: what the derivative says about itself.
        kind: of the derivative: "tiff", "png" or "jpeg".
    """
    warnings: list[str] = []
    tags, below = _exif(header, read, size, warnings, statement)
    with _toolkit:
        data = _parsed(header.xmp, warnings)
        if kind == "png" and header.iptc:
            _add_iptc(data, header.iptc)
        _mark(data, statement)
        packet, iptc = _encoded(data), b"" if kind == "png" else header.iptc or b""
        if kind == "jpeg" and len(packet) > _JPEG_SEGMENT:
            warnings.append("the master's XMP does not fit into a JPEG and was left out")
            alone = exiv2.XmpData()
            _mark(alone, statement)
            packet = _encoded(alone)
    if kind == "jpeg" and len(iptc) > _JPEG_SEGMENT:
        warnings.append("the master's IPTC does not fit into a JPEG and was left out")
        iptc = b""
    return Carried(xmp=packet, iptc=iptc, tags=tags, below=below, warnings=tuple(warnings))


def _true_again(header: Header, statement: Statement) -> dict[int, Tag]:
    """EXIF's own word on colour space and size."""
    return {
        40961: Tag(type=3, count=1, raw=struct.pack("<H", statement.exif_colour_space)),
        40962: Tag(type=4, count=1, raw=struct.pack("<I", header.width)),
        40963: Tag(type=4, count=1, raw=struct.pack("<I", header.height)),
    }


def _exif(
    header: Header, read: Read, size: int, warnings: list[str], statement: Statement
) -> tuple[dict[int, Tag], Mapping[int, Mapping[int, Tag]]]:
    """Main tags and those of the EXIF and GPS directories, little endian."""
    main = header.directory
    if main is None and header.exif:
        block = header.exif
        read, size = (lambda at, count: block[at : at + count]), len(block)
        try:
            main = next(directories(read, size), None)
        except TagsUnreadable:
            warnings.append("the master's EXIF cannot be read and was left out")
    if main is None:
        return {}, {}
    below: dict[int, dict[int, Tag]] = {}
    for pointer, dropped in ((_EXIF_POINTER, _EXIF_DROPPED), (_GPS_POINTER, frozenset[int]())):
        directory = _below(main, pointer, read, size, warnings)
        kept = _kept(directory, set(directory.tags) - dropped) if directory else {}
        if kept and pointer == _EXIF_POINTER:
            kept |= _true_again(header, statement)
        if kept:
            below[pointer] = kept
    kept = _kept(main, _MAIN_TAGS)
    if 270 in kept and kept[270].raw.startswith(_LAYOUT_WORDS):
        del kept[270]
    return kept, below


def _below(main: Directory, pointer: int, read: Read, size: int, warnings: list[str]) -> Directory | None:
    offset = main.number(pointer, 0)
    if not offset:
        return None
    try:
        return sub_directory(read, size, main, offset)
    except TagsUnreadable:
        warnings.append(f"the master's {'GPS' if pointer == _GPS_POINTER else 'EXIF'} directory cannot be read")
        return None


def _kept(directory: Directory, numbers: Iterable[int]) -> dict[int, Tag]:
    found = {number: directory.tags[number] for number in numbers if number in directory.tags}
    return {n: _little(tag, directory.order) for n, tag in found.items() if len(tag.raw) <= _LONGEST_TAG and tag.raw}


def _little(tag: Tag, order: str) -> Tag:
    """The same values in little endian."""
    width = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 4, 10: 4, 12: 8, 16: 8, 17: 8, 18: 8}.get(tag.type, 1)
    if order == "<" or width == 1:
        return tag
    return dataclasses.replace(tag, raw=np.frombuffer(tag.raw, f">u{width}").astype(f"<u{width}").tobytes())


def _parsed(packet: bytes | None, warnings: list[str]) -> Any:
    """exiv2's view of an XMP packet; an empty one when there is none or it is broken."""
    if not packet:
        return exiv2.XmpData()
    body = packet.strip(b"\0 \r\n\t")
    if not body.startswith(b"<?xpacket"):
        body = b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>' + body + b'<?xpacket end="w"?>'
    try:
        image = exiv2.ImageFactory.open(body)  # a packet is read as the sidecar file it could be
        image.readMetadata()
        if not image.xmpData().empty():
            return image.xmpData()
    except exiv2.Exiv2Error as error:
        if wants_memory(error):  # the master's words are not to be lost for that
            raise out_of_memory(error) from error
    warnings.append("the master's XMP cannot be read and was left out")
    return exiv2.XmpData()


def _add_iptc(data: Any, iptc: bytes) -> None:
    """IIM's descriptive fields where XMP does not have them."""
    resource = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    if len(resource) > 65_000:
        return
    wrapped = b"\xff\xd8\xff\xed" + struct.pack(">H", len(resource) + 2) + resource + b"\xff\xda\0\2\xff\xd9"
    try:
        image = exiv2.ImageFactory.open(wrapped)
        image.readMetadata()
    except exiv2.Exiv2Error as error:
        if wants_memory(error):
            raise out_of_memory(error) from error
        return
    present = {datum.key() for datum in data}
    for datum in image.iptcData():
        key = _IPTC_AS_XMP.get(datum.key())
        if key and (key not in present or key == "Xmp.dc.subject"):
            data[key] = plain_text(str(datum.value()))


def _mark(data: Any, statement: Statement) -> None:
    """The AI marking, provenance and what is true of the derivative."""
    origin, words = statement.origin, statement.words
    keys = [datum.key() for datum in data]
    before = {key: str(data[f"Xmp.xmpMM.{key}"].value()) for key in ("DocumentID", "InstanceID", "OriginalDocumentID")
              if f"Xmp.xmpMM.{key}" in keys}  # fmt: skip
    instructions = str(data["Xmp.photoshop.Instructions"].value()) if "Xmp.photoshop.Instructions" in keys else ""
    _drop(data, _XMP_DROPPED)
    document = uuid.uuid5(_NAMESPACE, f"{origin.source_sha256} {origin.model_version} {words}")
    instance = uuid.uuid5(document, f"{origin.job_id} {origin.weights_sha256}")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    original = before.get("OriginalDocumentID") or before.get("DocumentID")
    fields = {
        "iptcExt.DigitalSourceType": SOURCE_TYPES + statement.source_type,
        "iptcExt.AISystemUsed": PRODUCT,
        "iptcExt.AISystemVersionUsed": origin.model_version,
        "photoshop.Instructions": "\n".join(filter(None, [instructions, origin.sentence])),
        "photoshop.ColorMode": "3",
        "photoshop.ICCProfile": statement.profile,
        "exif.ColorSpace": str(statement.exif_colour_space),
        "xmp.MetadataDate": now,
        "xmp.ModifyDate": now,
        "xmpMM.OriginalDocumentID": original or f"sha256:{origin.source_sha256}",
        "xmpMM.DocumentID": f"xmp.did:{document}",
        "xmpMM.InstanceID": f"xmp.iid:{instance}",
        "xmpMM.DerivedFrom/stRef:documentID": before.get("DocumentID") or f"sha256:{origin.source_sha256}",
        "xmpMM.DerivedFrom/stRef:instanceID": before.get("InstanceID") or f"sha256:{origin.source_sha256}",
        "xmpMM.DerivedFrom/stRef:originalDocumentID": original or f"sha256:{origin.source_sha256}",
        "xmpMM.DerivedFrom/stRef:filePath": origin.source_name,
    }
    if "Xmp.xmp.CreatorTool" not in keys:
        fields["xmp.CreatorTool"] = PRODUCT
    for key, value in fields.items():
        data[f"Xmp.{key}"] = plain_text(value)
    step = {"action": "derived", "when": now, "softwareAgent": f"{PRODUCT} (model {origin.model_version})",
            "instanceID": fields["xmpMM.InstanceID"], "parameters": words}  # fmt: skip
    _append_step(data, step)


def _drop(data: Any, names: Iterable[str]) -> None:
    """Remove properties with everything inside them."""
    doomed = [datum.key() for datum in data if any(_within(datum.key(), name) for name in names)]
    for key in reversed(doomed):
        position = data.findKey(exiv2.XmpKey(key))
        if position != data.end():
            data.erase(position)


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith((name + "/", name + "["))


def _append_step(data: Any, step: Mapping[str, str]) -> None:
    """One more event in xmpMM:History."""
    history = "Xmp.xmpMM.History"
    keys = {datum.key() for datum in data}
    if history not in keys:
        empty = exiv2.XmpTextValue()
        empty.setXmpArrayType(exiv2.XmpValue.XmpArrayType.xaSeq)
        data.add(exiv2.XmpKey(history), empty)
    number = 1
    while any(_within(key, f"{history}[{number}]") for key in keys):
        number += 1
    for name, value in step.items():
        data[f"{history}[{number}]/stEvt:{name}"] = plain_text(value)


def _encoded(data: Any) -> bytes:
    """The packet, without the padding that only in-place editors need."""
    flags = exiv2.XmpParser.XmpFormatFlags
    _, text = exiv2.XmpParser.encode(data, flags.omitPacketWrapper | flags.useCompactFormat)
    head, tail = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n', '\n<?xpacket end="w"?>'
    return (head + text.strip() + tail).encode()
