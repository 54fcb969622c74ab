"""What the master says of itself is in the derivative; what is no longer true is not; what it is now is said."""

import io
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import exiv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from worker import derivative, scans
from worker.errors import ScanError

ORIGIN = derivative.Origin(
    source_name="Müller & Söhne.tif", source_sha256="a" * 64, model_version="v9", weights_sha256="b" * 64, job_id="12"
)
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:own="http://archive.example/ns/" own:signature="B 17/4"
 xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmpMM:DocumentID="xmp.did:first" xmpMM:InstanceID="xmp.iid:second"
 xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 tiff:PhotometricInterpretation="1" tiff:SamplesPerPixel="1" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 photoshop:ColorMode="1" photoshop:ICCProfile="Dot Gain 20%" photoshop:LegacyIPTCDigest="AB"
 photoshop:Instructions="Do not crop"><dc:title>
 <rdf:Alt><rdf:li xml:lang="x-default">Der Hof</rdf:li></rdf:Alt></dc:title>
 <xmpMM:History><rdf:Seq><rdf:li stEvt:action="created" stEvt:when="2001-01-01"/></rdf:Seq></xmpMM:History>
 </rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()
IPTC = b"\x1c\x01\x5a\x00\x03\x1b%G\x1c\x02\x05\x00\x07Der Hof\x1c\x02\x50\x00\x0bA. Fotograf\x1c\x02\x19\x00\x03Hof"


class Flat:
    def chroma(self, light: np.ndarray, ratio: float | None = None) -> np.ndarray:
        return np.full((8, 8, 2), 15, np.float32)


@pytest.fixture(scope="module", autouse=True)
def _libvips() -> None:
    scans.set_up_libvips()


def _picture(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[270], exif[271], exif[272] = "Hof mit Pferden", "Epson", "V850"
    exif[315], exif[33432], exif[306] = "A. Fotograf", "(c) Archiv", "2001:02:03 04:05:06"
    exif.get_ifd(34665).update({36867: "1912:05:01 10:00:00", 37500: b"maker", 40961: 65535, 40962: 1, 40963: 1})
    exif.get_ifd(34853).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    return exif


def _master(path: Path, kind: str) -> None:
    image = Image.fromarray(_picture())
    if kind == "tiff":
        with tifffile.TiffWriter(path, byteorder=">") as writer:
            tags = [(700, "B", len(XMP), XMP, True), (33723, "B", len(IPTC), IPTC, True), (271, "s", 0, "Epson", True),
                    (272, "s", 0, "V850", True), (315, "s", 0, "A. Fotograf", True),
                    (33432, "s", 0, "(c) Archiv", True), (306, "s", 0, "2001:02:03 04:05:06", True)]  # fmt: skip
            writer.write(
                _picture(), metadata=None, description="Hof mit Pferden", extratags=tags, photometric="minisblack"
            )
    elif kind == "png":
        image.save(path, "png", exif=_exif())
    else:
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", exif=_exif(), quality=95)
        data = buffer.getvalue()
        resource = (
            b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC + b"\0" * (len(IPTC) % 2)
        )
        xap = b"http://ns.adobe.com/xap/1.0/\0" + XMP
        bodies = ((b"\xed", resource), (b"\xe1", xap))
        segments = b"".join(b"\xff" + marker + struct.pack(">H", len(body) + 2) + body for marker, body in bodies)
        path.write_bytes(data[:2] + segments + data[2:])


def _derive(master: Path, target: Path, **policy: Any) -> derivative.Rendered:
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        with scans.open_scan(master) as scan:
            chosen = derivative.Policy(**policy)
            rendered = derivative.render(scan, Flat(), descriptor, policy=chosen, origin=ORIGIN)
            derivative.check(rendered, derivative.verify(scan, descriptor))
            return rendered
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, str]:
    image = exiv2.ImageFactory.open(str(path))
    image.readMetadata()
    return {d.key(): str(d.value()) for data in (image.exifData(), image.iptcData(), image.xmpData()) for d in data}


@pytest.mark.parametrize("kind", ["tiff", "png", "jpeg"])
@pytest.mark.parametrize("to", ["tiff", "png", "jpeg"])
def test_descriptive_metadata_survive(tmp_path: Path, kind: str, to: str) -> None:
    master, target = tmp_path / "in", tmp_path / "out"
    _master(master, kind)
    _derive(master, target, kind=to)
    found = _read(target)
    assert found["Exif.Image.ImageDescription"] == "Hof mit Pferden"
    assert found["Exif.Image.Make"] == "Epson"
    assert found["Exif.Image.Model"] == "V850"
    assert found["Exif.Image.Artist"] == "A. Fotograf"
    assert found["Exif.Image.Copyright"] == "(c) Archiv"
    assert found["Exif.Image.DateTime"] == "2001:02:03 04:05:06"
    if kind != "tiff":
        assert found["Exif.Photo.DateTimeOriginal"] == "1912:05:01 10:00:00"
        assert found["Exif.GPSInfo.GPSLatitude"].startswith("52/1 31/1")
        assert found["Exif.Photo.ColorSpace"] == "1"
        assert (found["Exif.Photo.PixelXDimension"], found["Exif.Photo.PixelYDimension"]) == ("80", "60")
        assert "Exif.Photo.MakerNote" not in found
    if kind != "png":
        assert found["Xmp.dc.title"] == 'lang="x-default" Der Hof'
        assert found["Xmp.own.signature"] == "B 17/4"
        if to == "png":
            assert found["Xmp.dc.creator"] == "A. Fotograf"
        else:
            assert found["Iptc.Application2.Byline"] == "A. Fotograf"


@pytest.mark.parametrize("kind", ["tiff", "jpeg"])
def test_what_is_no_longer_true_is_put_right(tmp_path: Path, kind: str) -> None:
    master, target = tmp_path / "in", tmp_path / "out"
    _master(master, kind)
    _derive(master, target)
    found = _read(target)
    assert found["Xmp.photoshop.ColorMode"] == "3"
    assert found["Xmp.photoshop.ICCProfile"] == "sRGB"
    for gone in ("photoshop.LegacyIPTCDigest", "tiff.PhotometricInterpretation", "tiff.SamplesPerPixel"):
        assert f"Xmp.{gone}" not in found
    assert found["Xmp.xmpMM.DocumentID"] not in ("xmp.did:first", "")
    assert found["Xmp.xmpMM.InstanceID"] not in ("xmp.iid:second", "")
    assert found["Xmp.xmpMM.OriginalDocumentID"] == "xmp.did:first"
    assert found["Xmp.xmpMM.DerivedFrom/stRef:documentID"] == "xmp.did:first"
    assert found["Xmp.xmpMM.DerivedFrom/stRef:instanceID"] == "xmp.iid:second"
    assert found["Xmp.xmpMM.History[1]/stEvt:action"] == "created"
    assert found["Xmp.xmpMM.History[2]/stEvt:action"] == "derived"
    assert "v9" in found["Xmp.xmpMM.History[2]/stEvt:softwareAgent"]
    assert "strength 1" in found["Xmp.xmpMM.History[2]/stEvt:parameters"]


@pytest.mark.parametrize("kind", ["tiff", "png", "jpeg"])
def test_the_marking(tmp_path: Path, kind: str) -> None:
    master, target = tmp_path / "in", tmp_path / "out"
    _master(master, "tiff")
    _derive(master, target, kind=kind, digital_source_type="algorithmicallyEnhanced")
    found = _read(target)
    assert (
        found["Xmp.iptcExt.DigitalSourceType"]
        == "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"
    )
    assert found["Xmp.iptcExt.AISystemUsed"] == "Photochrom"
    assert found["Xmp.iptcExt.AISystemVersionUsed"] == "v9"
    first, second = found["Xmp.photoshop.Instructions"].split("\n")
    assert first == "Do not crop"
    assert "inferred by AI" in second
    assert "Müller & Söhne.tif" in second


@pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")
@pytest.mark.parametrize("kind", ["tiff", "png", "jpeg"])
def test_exiftool_finds_nothing_wrong(tmp_path: Path, kind: str) -> None:
    master, target = tmp_path / "in", tmp_path / "out"
    _master(master, "jpeg")
    _derive(master, target, kind=kind)
    said = subprocess.run(
        ["exiftool", "-validate", "-warning", "-a", str(target)], capture_output=True, text=True
    ).stdout
    assert "Error" not in said


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"ome": True}])
def test_notes_on_the_masters_pixel_layout_are_left_behind(tmp_path: Path, options: dict[str, Any]) -> None:
    master, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tifffile.imwrite(master, _picture(), **options)
    _derive(master, target)
    with tifffile.TiffFile(target) as file:
        assert file.pages[0].description == ""
        assert file.asarray().shape == (60, 80, 3)


def test_broken_metadata_never_stop_a_scan(tmp_path: Path) -> None:
    master, target = tmp_path / "in", tmp_path / "out"
    pointer = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 34665, 4, 1, 4_000_000, 0)
    buffer = io.BytesIO()
    Image.fromarray(_picture()).save(buffer, "jpeg", exif=b"Exif\0\0" + pointer)
    bad = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF oops"
    data = buffer.getvalue()
    master.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(bad) + 2) + bad + data[2:])
    rendered = _derive(master, target)
    assert any("XMP" in warning for warning in rendered.warnings)
    assert any("EXIF" in warning for warning in rendered.warnings)


def test_all_pages_in_all_pages_out(tmp_path: Path) -> None:
    master, target = tmp_path / "in.tif", tmp_path / "out.tif"
    pages = [_picture(60, 80), np.full((30, 20), 255, np.uint8), (_picture(50, 70).astype(np.uint16) * 257)]
    with tifffile.TiffWriter(master) as writer:
        for number, page in enumerate(pages):
            writer.write(page, metadata=None, description=f"page {number}", photometric="minisblack")
        writer.write(_picture(5, 5), metadata=None, subfiletype=1)  # a reduced copy is no page
    rendered = _derive(master, target)
    assert rendered.pages == 3
    with tifffile.TiffFile(target) as file:
        assert [page.shape for page in file.pages] == [(60, 80, 3), (30, 20, 3), (50, 70, 3)]
        assert [page.dtype for page in file.pages] == [np.uint8, np.uint8, np.uint16]
        assert [page.description for page in file.pages] == ["page 0", "page 1", "page 2"]
        assert (file.pages[1].asarray() == 255).all()
    with scans.open_scan(master) as scan, pytest.raises(ScanError, match="3 pages"):
        derivative.render(scan, Flat(), -1, policy=derivative.Policy(kind="png"), origin=ORIGIN)


def test_a_colour_page_among_gray_ones_is_named(tmp_path: Path) -> None:
    master = tmp_path / "in.tif"
    with tifffile.TiffWriter(master) as writer:
        writer.write(_picture(), metadata=None, photometric="minisblack")
        rgb = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8).repeat(20, 0).repeat(20, 1)
        writer.write(rgb, metadata=None, photometric="rgb")
    with pytest.raises(ScanError, match="Page 2 of 2"):
        _derive(master, tmp_path / "out.tif")
