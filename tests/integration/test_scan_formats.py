"""Every odd and broken real file ends in the state named here, and every made variant reads as the same picture."""

import dataclasses
import errno
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image
from profiles_made import gray_profile

from model import lab
from worker import decoders, scans
from worker.errors import ScanError
from worker.header import Header

FORMATS = Path(__file__).parents[2].parent / "shared" / "scans" / "formats"

#: what becomes of each file of `scans/formats`: the class of the picture, or the code of the error
OUTCOMES = {
    "dali_extra__3.jpg": "unsupported",
    "dali_extra__cat-111793_640_gray.tiff": "gray",
    "dali_extra__cat-300572_640_palette.tiff": "unsupported",
    "image-tiff__12bit.cropped.tiff": "unsupported",
    "image-tiff__cramps-tile.tif": "gray",
    "image-tiff__cramps.tif": "gray",
    "image-tiff__flower-minisblack-02.tif": "gray",
    "image-tiff__flower-minisblack-16.tif": "gray",
    "image-tiff__flower-minisblack-32.tif": "unsupported",
    "image-tiff__g3test.tif": "unsupported",
    "image-tiff__graydepth-invert-overflow-5a0aad5024cc4ff3.tiff": "truncated",
    "image-tiff__jim___ah.tif": "unsupported",
    "image-tiff__jim___gg.tif": "gray",
    "image-tiff__minisblack-1c-16b.tiff": "gray",
    "image-tiff__minisblack-2c-8b-alpha.tiff": "unsupported",
    "image-tiff__off_l16.tif": "unsupported",
    "image-tiff__predictor-3-gray-f32.tif": "unsupported",
    "image-tiff__quad-tile.tif": "unsupported",
    "image-tiff__smallliz.tif": "unsupported",
    "image-tiff__strike.tif": "unsupported",
    "image-tiff__text.tif": "unsupported",
    "image-tiff__tiled-gray-i1.tif": "unsupported",
    "image-tiff__tiled-jpeg-ycbcr.tif": "unsupported",
    "imageio-binaries__fei-sem-rbc.tif": "gray",
    "imageio-binaries__multipage.tif": "gray",
    "libvips__issue412.jp2": "unsupported",
    "libvips__sample.tif": "unsupported",
    "libvips__truncated.jpg": "truncated",
    "pillow__00r1_graya_la.jp2": "unsupported",
    "pillow__12bit.cropped.tif": "unsupported",
    "pillow__16bit.MM.deflate.tif": "unsupported",
    "pillow__16bit.cropped.tif": "unsupported",
    "pillow__16bit.r.tif": "unsupported",
    "pillow__8bit.s.tif": "unsupported",
    "pillow__balloon_eciRGBv2_aware.jp2": "truncated",
    "pillow__broken_data_stream.png": "truncated",
    "pillow__copyleft.tiff": "near-neutral",
    "pillow__crash-0e16d3bfb83be87356d026d66919deaefca44dac.tif": "truncated",
    "pillow__crash-74d2a78403a5a59db1fb0a2b8735ac068a75f6e3.tif": "unsupported",
    "pillow__crash-f46f5b2f43c370fe65706c11449f567ecc345e74.tif": "truncated",
    "pillow__g4-multi.tiff": "unsupported",
    "pillow__g4_orientation_3.tif": "unsupported",
    "pillow__g4_orientation_6.tif": "unsupported",
    "pillow__hopper.Lab.tif": "unsupported",
    "pillow__hopper2.tif": "gray",
    "pillow__hopper_16bit.pgm": "gray",
    "pillow__hopper_1bit.pbm": "unsupported",
    "pillow__hopper_bad_exif.jpg": "gray",
    "pillow__hopper_g4_500.tif": "unsupported",
    "pillow__hopper_lzma.tif": "unsupported",
    "pillow__hopper_unknown_pixel_mode.tif": "unsupported",
    "pillow__icc-after-SOF.jpg": "unsupported",
    "pillow__invalid-exif.jpg": "near-neutral",
    "pillow__multipage.tiff": "blank",
    "pillow__multipage_out_of_order.tiff": "blank",
    "pillow__not_enough_data.jp2": "broken",
    "pillow__old-style-jpeg-compression.tif": "unsupported",
    "pillow__oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": "truncated",
    "pillow__seek_too_large.tif": "truncated",
    "pillow__tiff_16bit_RGB.tiff": "unsupported",
    "pillow__tiff_adobe_deflate.tif": "unsupported",
    "pillow__tiff_strip_ycbcr_jpeg_2x2_sampling.tif": "unsupported",
    "pillow__tiff_tiled_planar_lzw.tiff": "unsupported",
    "pillow__tiff_tiled_ycbcr_jpeg_1x1_sampling.tif": "unsupported",
    "pillow__total-pages-zero.tif": "unsupported",
    "pillow__truncated_app14.jpg": "toned",
    "pillow__truncated_jpeg.jpg": "truncated",
    "pillow__zero_height.j2k": "broken",
    "sharp__Channel_digital_image_CMYK_color.jpg": "unsupported",
    "sharp__G31D.TIF": "unsupported",
    "sharp__fogra-0-100-100-0.tif": "unsupported",
    "sharp__grey-8bit-alpha.png": "unsupported",
    "sharp__truncated.jpg": "truncated",
    "sharp__truncated.png": "truncated",
    "sharp__uncompressed_tiff.tiff": "unsupported",
}


@pytest.fixture(scope="module", autouse=True)
def _libvips() -> None:
    scans.set_up_libvips()


def _outcome(path: Path) -> str:
    try:
        with scans.open_scan(path) as scan:
            assert sum(len(strip) for strip in scan.strips()) == scan.height
            return str(scan.input_class)
    except ScanError as error:
        assert str(error).endswith(".")
        assert ": " in str(error), "the sentence names the next step"
        return error.code


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the shared format set is not here")
def test_the_table_names_every_file() -> None:
    assert {path.name for path in FORMATS.iterdir()} == set(OUTCOMES)


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the shared format set is not here")
@pytest.mark.parametrize(("name", "expected"), OUTCOMES.items())
def test_real_files(name: str, expected: str) -> None:
    assert _outcome(FORMATS / name) == expected


def _picture(bit_depth: int, shape: tuple[int, int] = (150, 217)) -> np.ndarray:
    """Gray codes with edges, shadows and highlights."""
    noise = cv2.GaussianBlur(np.random.default_rng(5).random(shape).astype(np.float32), (0, 0), 4)
    ramp = (noise - noise.min()) / np.ptp(noise)
    ramp[:20] = np.linspace(0, 1, shape[1])
    return (ramp * (2**bit_depth - 1)).round().astype(np.uint16 if bit_depth == 16 else np.uint8)


def _srgb_lightness(codes: np.ndarray) -> np.ndarray:
    return lab.lightness(lab.decode_srgb(codes / (255 if codes.dtype == np.uint8 else 65535)))


def _light(path: Path, **options: Any) -> np.ndarray:
    with scans.open_scan(path, **options) as scan:
        return np.concatenate(list(scan.strips(37)))


TIFF_VARIANTS: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 13},
    "one strip": {"rowsperstrip": 1000},
    "tiles": {"tile": (64, 80)},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "adobe_deflate"},
    "packbits": {"compression": "packbits"},
    "big endian": {"byteorder": ">"},
    "big endian deflate": {"byteorder": ">", "compression": "adobe_deflate", "predictor": True},
    "bigtiff": {"bigtiff": True},
    "bigtiff big endian tiles": {"bigtiff": True, "byteorder": ">", "tile": (16, 16)},
}


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("variant", TIFF_VARIANTS)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_tiff_variants_read_alike(tmp_path: Path, bit_depth: int, variant: str, photometric: str) -> None:
    picture = _picture(bit_depth)
    stored = picture if photometric == "minisblack" else np.invert(picture)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=TIFF_VARIANTS[variant].get("bigtiff", False),
                             byteorder=TIFF_VARIANTS[variant].get("byteorder", "<")) as writer:  # fmt: skip
        options = {k: v for k, v in TIFF_VARIANTS[variant].items() if k not in ("bigtiff", "byteorder")}
        writer.write(stored, photometric=photometric, metadata=None, **options)
    np.testing.assert_allclose(_light(path), _srgb_lightness(picture), atol=1e-3)


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb_tiff(tmp_path: Path, bit_depth: int, planar: str) -> None:
    picture = _picture(bit_depth)
    stack = np.stack([picture] * 3, axis=-1 if planar == "contig" else 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, photometric="rgb", planarconfig=planar, metadata=None)
    np.testing.assert_allclose(_light(path), _srgb_lightness(picture), atol=2e-3)
    with scans.open_scan(path) as scan:
        assert scan.input_class == "near-neutral"


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_png(tmp_path: Path, bit_depth: int) -> None:
    path = tmp_path / "wrong-suffix.jpg"  # content decides
    path.write_bytes(cv2.imencode(".png", _picture(bit_depth))[1].tobytes())
    np.testing.assert_allclose(_light(path), _srgb_lightness(_picture(bit_depth)), atol=1e-3)
    with scans.open_scan(path) as scan:
        assert (scan.kind, scan.bit_depth) == ("png", bit_depth)


@pytest.mark.parametrize(("gamma", "exponent"), [(100_000, 1.0), (55_556, 1.8), (45_455, None)])
def test_a_gray_pngs_own_gamma(tmp_path: Path, gamma: int, exponent: float | None) -> None:
    """A gAMA of 1/2.2 is written by everyone and means sRGB; any other is meant."""
    picture = _picture(16)
    data = cv2.imencode(".png", picture)[1].tobytes()
    body = b"gAMA" + struct.pack(">I", gamma)
    path = tmp_path / "a.png"
    path.write_bytes(data[:33] + struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:])
    expected = _srgb_lightness(picture) if exponent is None else lab.lightness((picture / 65535) ** exponent)
    np.testing.assert_allclose(_light(path), expected, atol=5e-3)


def test_jpeg_gray_and_its_orientation_and_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(_picture(8)).save(path, quality=100, dpi=(300, 300), exif=exif)
    with scans.open_scan(path) as scan:
        assert (scan.width, scan.height, scan.orientation) == (217, 150, 6)
        assert (scan.x_resolution, scan.resolution_unit) == (300, "inch")
        codes = np.asarray(Image.open(path))
        np.testing.assert_allclose(np.concatenate(list(scan.strips())), _srgb_lightness(codes), atol=1e-3)


DOT_GAIN_20 = 1 - np.clip((lambda a: a + 0.8 * a * (1 - a))(1 - np.linspace(0, 1, 256)), 0, 1)
PROFILES: dict[str, tuple[Any, Any]] = {
    "gamma 1.8": (1.8, lambda v: v ** (461 / 256)),
    "gamma 2.2": (2.2, lambda v: v ** (563 / 256)),
    "linear": (1.0, lambda v: v),
    "dot gain 20": (DOT_GAIN_20, lambda v: np.interp(v, np.linspace(0, 1, 256), np.round(DOT_GAIN_20 * 65535) / 65535)),
}


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("name", PROFILES)
def test_gray_profiles_at_float_precision(tmp_path: Path, name: str, bit_depth: int) -> None:
    curve, function = PROFILES[name]
    picture, profile = _picture(bit_depth), gray_profile(curve)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="minisblack", metadata=None, iccprofile=profile)
    expected = lab.lightness(function(picture / (2**bit_depth - 1)))
    np.testing.assert_allclose(_light(path), expected, atol=1e-3)
    with scans.open_scan(path) as scan:
        assert scan.profile == "made"
        assert scan.tone.startswith("icc gray")


def test_a_profile_of_another_kind_is_named_and_not_used(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, _picture(8), photometric="minisblack", metadata=None, iccprofile=imagecodecs.cms_profile("srgb")
    )
    with scans.open_scan(path) as scan:
        assert scan.tone == "srgb (assumed)"
        assert "RGB" in scan.warnings[0]


@pytest.mark.parametrize("name", ["srgb", "gamma1.8", "gamma2.2", "linear"])
def test_the_assumed_curve(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, _picture(16), photometric="minisblack", metadata=None)
    v = _picture(16) / 65535
    curve = {"srgb": lab.decode_srgb(v), "gamma1.8": v**1.8, "gamma2.2": v**2.2, "linear": v}[name]
    np.testing.assert_allclose(_light(path, assumed_gray_trc=name), lab.lightness(curve), atol=1e-3)


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("variant", [
    {"compression": "zstd"}, {"compression": "lzma"}, {"compression": "zstd", "tile": (32, 32), "predictor": True},
    {"planarconfig": "separate", "tile": (32, 32), "compression": "lzw"},
])  # fmt: skip
def test_tiffs_that_libvips_does_not_read(tmp_path: Path, bit_depth: int, variant: dict[str, Any]) -> None:
    picture = _picture(bit_depth)
    path = tmp_path / "a.tif"
    if "planarconfig" in variant:
        tifffile.imwrite(path, np.stack([picture] * 3), photometric="rgb", metadata=None, **variant)
    else:
        tifffile.imwrite(path, np.invert(picture), photometric="miniswhite", metadata=None, **variant)
    np.testing.assert_allclose(_light(path), _srgb_lightness(picture), atol=2e-3)


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
def test_odd_depths_keep_black_white_and_proportion(tmp_path: Path, bits: int) -> None:
    picture = (_picture(16) >> (16 - bits)).astype(np.uint8 if bits < 8 else np.uint16)
    single = picture[..., None] >> np.arange(bits - 1, -1, -1).astype(picture.dtype) & 1
    path = tmp_path / "a.tif"
    data = np.packbits(single.reshape(len(picture), -1).astype(np.uint8), axis=1).tobytes()  # rows start on a byte
    facts = [(256, 3, 217), (257, 3, 150), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1),
             (278, 3, 150), (279, 4, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in facts)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(facts)) + entries + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + data)
    expected = lab.lightness(lab.decode_srgb(picture / (2**bits - 1)))
    np.testing.assert_allclose(_light(path), expected, atol=2e-2 if bits < 8 else 2e-3)
    with scans.open_scan(path) as scan:
        assert scan.bit_depth == (8 if bits < 8 else 16)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_lab_tiff_gives_its_own_lightness(tmp_path: Path, bit_depth: int) -> None:
    picture = _picture(bit_depth)
    codes = np.zeros((*picture.shape, 3), picture.dtype)
    codes[..., 0], codes[..., 2] = picture, 10 * (1 if bit_depth == 8 else 256)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, codes, photometric="cielab", metadata=None)
    np.testing.assert_allclose(_light(path), picture * (100 / (2**bit_depth - 1)), atol=1e-3)
    with scans.open_scan(path) as scan:
        assert scan.input_class == "toned"


def test_palette_tiff(tmp_path: Path) -> None:
    picture = _picture(8)
    ramp = np.arange(255, -1, -1).astype(np.uint16) * 257  # index 0 is white
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, 255 - picture, photometric="palette", colormap=np.stack([ramp] * 3), metadata=None)
    np.testing.assert_allclose(_light(path), _srgb_lightness(picture), atol=2e-3)


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_jpeg_2000(tmp_path: Path, bit_depth: int, bands: int, codec: str) -> None:
    picture = _picture(bit_depth)
    stored = picture if bands == 1 else np.stack([picture] * 3, axis=-1)
    path = tmp_path / "a.tif"
    data = imagecodecs.jpeg2k_encode(stored, level=0, reversible=True, codecformat=codec)
    path.write_bytes(data)
    np.testing.assert_allclose(_light(path), _srgb_lightness(picture), atol=2e-3)
    with scans.open_scan(path) as scan:
        assert (scan.kind, scan.bit_depth) == ("jp2", bit_depth)
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ScanError):
        scans.open_scan(path)


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("bands", [1, 3])
def test_pnm(tmp_path: Path, bit_depth: int, bands: int) -> None:
    picture = _picture(bit_depth)
    stored = picture if bands == 1 else np.stack([picture] * 3, axis=-1)
    head = f"P{5 if bands == 1 else 6}\n# scanned\n217 150\n{2**bit_depth - 1}\n".encode()
    path = tmp_path / "a.pnm"
    path.write_bytes(head + stored.astype(stored.dtype.newbyteorder(">")).tobytes())
    np.testing.assert_allclose(_light(path), _srgb_lightness(picture), atol=2e-3)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ScanError) as caught:
        scans.open_scan(path)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("lossless", [True, False])
def test_webp(tmp_path: Path, lossless: bool) -> None:
    path = tmp_path / "a.webp"
    Image.fromarray(_picture(8)).save(path, lossless=lossless, quality=90, exif=b"")
    codes = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_allclose(_light(path), lab.srgb_lightness(codes), atol=2e-3)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ScanError) as caught:
        scans.open_scan(path)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("kind", ["tiff", "png", "jpeg"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_cut_file_is_never_half_gray(tmp_path: Path, kind: str, share: float) -> None:
    path, buffer = tmp_path / "a", io.BytesIO()
    Image.fromarray(_picture(8)).save(buffer, kind)
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
    with pytest.raises(ScanError) as caught:
        scans.open_scan(path)
    assert caught.value.code == "truncated"


def test_reading_leaves_the_callers_descriptor_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, _picture(8), metadata=None)
    descriptor = os.open(path, os.O_RDONLY)
    os.lseek(descriptor, 5, os.SEEK_SET)
    path.rename(tmp_path / "moved.tif")  # what was opened counts, not its name
    with scans.open_scan(descriptor) as scan:
        first, second = np.concatenate(list(scan.strips())), np.concatenate(list(scan.strips(11)))
    np.testing.assert_array_equal(first, second)
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 5
    os.close(descriptor)


def test_the_pixel_cap_comes_before_any_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    head = struct.pack(">4sIIBBBBB", b"IHDR", 2**31 - 1, 2**31 - 1, 16, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)))
    with pytest.raises(ScanError, match="more than the 1,000 allowed"):
        scans.open_scan(path, max_pixels=1000)


def test_a_large_single_strip_is_read(tmp_path: Path) -> None:
    """libtiff inside libvips stops at 50 MB a strip unless told otherwise."""
    grain = np.random.default_rng(0).integers(0, 65536, (256, 8000)).astype(np.uint16)
    path = tmp_path / "a.tif"
    picture = np.tile(grain, (16, 1))
    tifffile.imwrite(path, picture, metadata=None, compression="adobe_deflate", rowsperstrip=100_000)
    with scans.open_scan(path) as scan:
        assert scan.header.largest_segment > 60_000_000


def test_a_failing_drive_is_not_the_scans_fault() -> None:
    """A real failing drive cannot be had here; the words are libvips' own around the system's."""
    header = Header(kind="tiff", width=10, height=10, bit_depth=8)
    for number, code in ((errno.EIO, "unreadable"), (errno.ESTALE, "unreadable"), (errno.ENOMSG, "broken")):
        error = pyvips.Error(f"read error\nunix error: {os.strerror(number)}")
        assert decoders._named(error, header).code == code


@pytest.mark.parametrize(("change", "words"), [
    ({"width": 400_001, "height": 1}, "cut it into parts"), ({"largest_segment": 2**30 + 1}, "smaller strips"),
    ({"whole_page": True, "width": 20_000, "height": 20_000}, "memory"), ({"photometric": "cmyk"}, "cmyk"),
    ({"sample_format": "float"}, "float"), ({"bit_depth": 32}, "32 bits"), ({"extra": 2}, "extra channels"),
])  # fmt: skip
def test_refusals_before_any_decoding(change: dict[str, Any], words: str) -> None:
    header = dataclasses.replace(Header(kind="tiff", width=10, height=10, bit_depth=8), **change)
    with pytest.raises(ScanError, match=words):
        scans._refuse(header, scans.MAX_PIXELS)


@pytest.mark.parametrize("colour", [False, True])
def test_alpha_that_hides_nothing_is_left_out(tmp_path: Path, colour: bool) -> None:
    picture = _picture(8)
    stack = [picture] * (3 if colour else 1)
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([*stack, np.full_like(picture, 255)]), "RGBA" if colour else "LA").save(path)
    np.testing.assert_allclose(_light(path), _srgb_lightness(picture), atol=2e-3)
    with scans.open_scan(path) as scan:
        assert "alpha" in scan.warnings[0]
    alpha = np.full_like(picture, 255)
    alpha[3, 4] = 254
    Image.fromarray(np.dstack([*stack, alpha]), "RGBA" if colour else "LA").save(path)
    with pytest.raises(ScanError, match="transparent"):
        scans.open_scan(path)


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the shared photographs are not here")
def test_colour_photographs_and_toned_prints_are_told_apart() -> None:
    """All 199 photographs are colour, all 35 historic scans are gray or toned."""
    shared = FORMATS.parents[1]
    for path in (shared / "eval" / "photos").iterdir():
        with scans.open_scan(path, force=True) as scan:
            assert scan.input_class == "colour", path.name
    for path in (shared / "scans" / "historic").iterdir():
        with scans.open_scan(path, force=True) as scan:
            assert scan.input_class in ("gray", "near-neutral", "toned"), path.name


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_page_is_skipped(tmp_path: Path, value: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((50, 60), value, np.uint8), metadata=None)
    with pytest.raises(ScanError, match="blank"):
        scans.open_scan(path)
    with scans.open_scan(path, force=True) as scan:
        assert scan.input_class == "blank"
