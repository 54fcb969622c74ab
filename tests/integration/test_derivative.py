"""Derivatives keep size, depth, L*, resolution, orientation, say what they are, and are proved on the written file."""

import dataclasses
import hashlib
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from profiles_made import gray_profile
from skimage import color

from model import registry
from model.colorizer import Colorizer
from worker import derivative, publish, scans
from worker.errors import OutputBlocked, OutputFull, VerifyFailed
from worker.profiles import srgb_profile

ORIGIN = derivative.Origin(
    source_name="a <b> & c.tif", source_sha256="a" * 64, model_version="test-1", weights_sha256="b" * 64
)


class PaintBox:
    """Stands where the net stands and gives strong colours of every hue: the hardest case for L*."""

    def chroma(self, light: np.ndarray, ratio: float | None = None) -> np.ndarray:
        y, x = np.mgrid[0:32, 0:32] / 31
        return (90 * np.stack([np.sin(5 * x + y), np.cos(4 * y - x)], axis=-1)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _libvips() -> None:
    scans.set_up_libvips()


def _codes(bit_depth: int, height: int = 90, width: int = 131) -> np.ndarray:
    rng = np.random.default_rng(height * 10_000 + width)
    soft = cv2.GaussianBlur(rng.random((height, width)).astype(np.float32), (0, 0), 2).reshape(height, width)
    soft = (soft - soft.min()) / max(float(np.ptp(soft)), 1e-6)
    noisy = np.clip(soft + rng.normal(0, 0.05, soft.shape), 0, 1)
    return (noisy * (2**bit_depth - 1)).round().astype(np.uint16 if bit_depth == 16 else np.uint8)


def _write(path: Path, codes: np.ndarray, kind: str, **options: Any) -> None:
    if kind == "tiff":
        tifffile.imwrite(path, codes, metadata=None, photometric="minisblack", **options)
    elif kind == "png":
        path.write_bytes(cv2.imencode(".png", codes)[1].tobytes())
    else:
        Image.fromarray(codes).save(path, "jpeg", quality=97)


def _render(source: Path, target: Path, colorizer: Any = None, **policy: Any) -> tuple[Any, derivative.Rendered, Any]:
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        with scans.open_scan(source, force=True) as scan:
            chosen = derivative.Policy(**policy)
            rendered = derivative.render(scan, colorizer or PaintBox(), descriptor, policy=chosen, origin=ORIGIN)
            report = derivative.verify(scan, descriptor)
            derivative.check(rendered, report)
            return scan, rendered, report
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("kind", ["tiff", "png", "jpeg"])
@pytest.mark.parametrize("to", ["same", "tiff", "png", "jpeg"])
def test_every_kind_into_every_kind(tmp_path: Path, bit_depth: int, kind: str, to: str) -> None:
    if kind == "jpeg" and bit_depth == 16:
        pytest.skip("a JPEG has 8 bits")
    source, target = tmp_path / "in", tmp_path / "out"
    _write(source, _codes(bit_depth), kind)
    before = source.read_bytes()
    _, rendered, report = _render(source, target, kind=to)
    written = kind if to == "same" else to
    assert (rendered.kind, report.kind) == (written, written)
    assert (report.width, report.height) == (131, 90)
    assert report.bit_depth == (8 if written == "jpeg" else bit_depth)
    assert report.within, report
    assert rendered.has_colour
    assert source.read_bytes() == before
    assert bool(rendered.warnings) == ((bit_depth == 16 and written == "jpeg") or "quality" in str(rendered.warnings))


@pytest.mark.parametrize(("bit_depth", "depth"), [(8, "16"), (16, "8"), (8, "8"), (16, "16")])
@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_depth_can_be_forced(tmp_path: Path, bit_depth: int, depth: str, kind: str) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    _write(source, _codes(bit_depth), kind)
    _, rendered, report = _render(source, target, depth=depth)
    assert report.bit_depth == int(depth)
    assert report.within
    assert any("written as 8" in warning for warning in rendered.warnings) == (bit_depth > int(depth))


@pytest.mark.parametrize("compression", ["deflate", "none", "lzw", "zstd"])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_tiff_compressions_read_alike_elsewhere(tmp_path: Path, compression: str, bit_depth: int) -> None:
    """tifffile, which shares no code with our writer or with libvips, reads the very pixels."""
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    _write(source, _codes(bit_depth), "tiff")
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT)
    with scans.open_scan(source) as scan:
        policy = derivative.Policy(tiff_compression=compression)
        rendered = derivative.render(scan, PaintBox(), descriptor, policy=policy, origin=ORIGIN)
    os.close(descriptor)
    pixels = tifffile.imread(target)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == rendered.pixels_sha256
    limit = {8: 0.25, 16: 0.01}[bit_depth]
    light = color.rgb2lab(pixels / (2**bit_depth - 1))[..., 0]
    truth = color.rgb2lab(np.repeat(_codes(bit_depth)[..., None], 3, -1) / (2**bit_depth - 1))[..., 0]
    assert np.abs(light - truth).max() <= limit


def test_png_reads_alike_elsewhere(tmp_path: Path) -> None:
    for bit_depth in (8, 16):
        source, target = tmp_path / "in.png", tmp_path / "out.png"
        _write(source, _codes(bit_depth, 300, 97), "png")
        _, rendered, _ = _render(source, target)
        pixels = cv2.imread(str(target), cv2.IMREAD_UNCHANGED)[..., ::-1]
        assert hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() == rendered.pixels_sha256


@pytest.mark.parametrize(("kind", "unit"), itertools.product(["tiff", "png", "jpeg"], ["inch", "cm"]))
def test_resolution_and_orientation_survive(tmp_path: Path, kind: str, unit: str) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out"
    tifffile.imwrite(source, _codes(8), metadata=None, photometric="minisblack", resolution=(236, 472),
                     resolutionunit="CENTIMETER" if unit == "cm" else "INCH",
                     extratags=[(274, "H", 1, 8, True)])  # fmt: skip
    _render(source, target, kind=kind)
    with scans.open_scan(target, force=True) as out:
        per_inch = 2.54 if out.resolution_unit == "cm" else 1.0
        wanted = 236 * (2.54 if unit == "cm" else 1.0)
        assert out.x_resolution * per_inch == pytest.approx(wanted, rel=2e-3)
        assert out.y_resolution * per_inch == pytest.approx(2 * wanted, rel=2e-3)
        assert out.orientation == 8
        assert kind == "png" or out.resolution_unit == unit


@pytest.mark.parametrize("kind", ["tiff", "png", "jpeg"])
def test_it_says_what_it_is(tmp_path: Path, kind: str) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out"
    _write(source, _codes(8), "tiff")
    _render(source, target, kind=kind)
    data = target.read_bytes()
    assert b"digitalsourcetype/compositeWithTrainedAlgorithmicMedia" in data
    assert b"AISystemVersionUsed" in data
    assert b"a &lt;b&gt; &amp; c.tif" in data
    picture = Image.open(io.BytesIO(data))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_a_big_tiff_reads_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.tiff_writer._CLASSIC_LIMIT", 1000)
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    _write(source, _codes(16), "tiff")
    _, rendered, report = _render(source, target)
    with tifffile.TiffFile(target) as file:
        assert file.is_bigtiff
        assert hashlib.sha256(file.asarray().tobytes()).hexdigest() == rendered.pixels_sha256 == report.pixels_sha256


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 3000), width=st.integers(1, 3000), bit_depth=st.sampled_from([8, 16]),
    kind=st.sampled_from(["tiff", "png"]), white=st.booleans(), orientation=st.integers(1, 8),
    compression=st.sampled_from([None, "lzw", "adobe_deflate", "packbits"]), gamma=st.sampled_from([None, 1.8, 2.2]),
    resolution=st.sampled_from([(300.0, 300.0, 2), (240.0, 120.0, 3), (1.0, 1.0, 1)]),
)  # fmt: skip
def test_invariants_of_any_scan(
    tmp_path: Path, height: int, width: int, bit_depth: int, kind: str, white: bool, orientation: int,
    compression: str | None, gamma: float | None, resolution: tuple[float, float, int],
) -> None:  # fmt: skip
    source, target = tmp_path / "in", tmp_path / "out"
    codes = _codes(bit_depth, height, width)
    if kind == "tiff":
        icc = gray_profile(gamma) if gamma is not None else None
        tifffile.imwrite(
            source, np.invert(codes) if white else codes, photometric="miniswhite" if white else "minisblack",
            metadata=None, compression=compression, extratags=[(274, "H", 1, orientation, True)], iccprofile=icc,
            resolution=resolution[:2], resolutionunit=resolution[2], rowsperstrip=64,
        )  # fmt: skip
    else:
        _write(source, codes, "png")
    scan, rendered, report = _render(source, target)
    assert report.within
    assert (report.width, report.height, report.bit_depth, report.kind) == (width, height, bit_depth, kind)
    assert rendered.pixels_sha256 == report.pixels_sha256
    with scans.open_scan(target, force=True) as out:
        assert out.orientation == scan.orientation
        assert out.resolution_unit == scan.resolution_unit
        if kind == "tiff" and resolution[2] != 1:
            assert (out.x_resolution, out.y_resolution) == (scan.x_resolution, scan.y_resolution) == resolution[:2]


@pytest.mark.parametrize("shape", [(9, 70_000), (70_000, 9), (1, 40_000), (40_000, 1), (1, 1)])
def test_very_wide_and_very_high_scans(tmp_path: Path, shape: tuple[int, int]) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    _write(source, _codes(16, *shape), "tiff")
    _, _, report = _render(source, target)
    assert report.within
    assert (report.height, report.width) == shape


def test_the_same_scan_gives_the_same_file(tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    _write(source, _codes(16, 700, 500), "tiff")
    reports = [_render(source, tmp_path / "out", threads=threads)[2] for threads in (1, 2, 4)]
    assert len({report.pixels_sha256 for report in reports}) == 1


def test_a_tampered_derivative_does_not_pass(tmp_path: Path) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    _write(source, _codes(8), "tiff")
    _, rendered, report = _render(source, target, tiff_compression="none")
    data = bytearray(target.read_bytes())
    data[1000:1300] = bytes(300)
    target.write_bytes(data)
    tampered = derivative.verify(source, target)
    assert not tampered.within
    assert tampered.max > report.max
    with pytest.raises(VerifyFailed, match="as it was written"):
        derivative.check(rendered, tampered)
    target.write_bytes(data[:5000])
    with pytest.raises(VerifyFailed):
        derivative.verify(source, target)
    with pytest.raises(VerifyFailed, match="do not belong"):
        _write(target, _codes(8, 20, 20), "tiff")
        derivative.verify(source, target)


def test_controls(tmp_path: Path) -> None:
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    _write(source, _codes(8), "tiff")
    plain = _render(source, target)[1]
    half = _render(source, target, strength=0.5)[1]
    none = _render(source, target, strength=0.0)[1]
    assert plain.mean_chroma > half.mean_chroma > none.mean_chroma == 0
    assert not none.has_colour
    assert derivative.controlled(np.zeros((2, 2, 2), np.float32), np.full((2, 2), 50, np.float32),
                                 derivative.Policy(temperature=1.0))[0, 0, 1] > 5  # fmt: skip


#: Adobe RGB (1998), eciRGB v2's primaries with a gamma of 1.8: xyY of red, green, blue, white
SPACES = {
    "adobe": ([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], (0.3127, 0.3290), 2.19921875),
    "eci-like": ([(0.67, 0.33), (0.21, 0.71), (0.14, 0.08)], (0.3457, 0.3585), 1.8),
}


def _profile(name: str) -> bytes:
    primaries, white, gamma = SPACES[name]
    return imagecodecs.cms_profile("rgb", whitepoint=white, primaries=[v for p in primaries for v in p], gamma=gamma)


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("name", SPACES)
def test_other_spaces_keep_l_star_and_colours(tmp_path: Path, name: str, bit_depth: int) -> None:
    source, plain, target, profile = (tmp_path / n for n in ("in.tif", "srgb.tif", "out.tif", "space.icc"))
    profile.write_bytes(_profile(name))
    _write(source, _codes(bit_depth), "tiff")
    _render(source, plain)
    _, _, report = _render(source, target, profile=str(profile))
    assert report.within, report
    assert derivative.verify(source, target).max == report.max
    with tifffile.TiffFile(target) as file:
        assert bytes(file.pages[0].tags[34675].value) == profile.read_bytes()
    to_lab = [imagecodecs.cms_transform(tifffile.imread(path).astype(np.float32) / (2**bit_depth - 1), icc,
                                        imagecodecs.cms_profile("lab4"), colorspace="rgb", outcolorspace="lab",
                                        outdtype=np.float32) for path, icc in
              ((plain, srgb_profile()), (target, profile.read_bytes()))]  # fmt: skip
    # the median: eciRGB's gamut lacks the strongest of sRGB's blues
    assert np.median(np.abs(to_lab[0] - to_lab[1])) < (0.6 if bit_depth == 8 else 0.1)


def test_a_profile_that_cannot_be_written_in_is_named(tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    _write(source, _codes(8), "tiff")
    (tmp_path / "bad.icc").write_bytes(b"no profile")
    for name in ("bad.icc", "none.icc"):
        with pytest.raises(OutputBlocked, match="profile"):
            _render(source, tmp_path / "out", profile=str(tmp_path / name))


def test_a_prints_tint_is_dropped_or_kept(tmp_path: Path) -> None:
    class Gray:
        def chroma(self, light: np.ndarray, ratio: float | None = None) -> np.ndarray:
            return np.zeros((8, 8, 2), np.float32)

    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    sepia = (_codes(8)[..., None] * np.array([1.0, 0.86, 0.66])).astype(np.uint8)
    tifffile.imwrite(source, sepia, photometric="rgb", metadata=None)
    assert _render(source, target, Gray())[1].mean_chroma == 0
    _, rendered, report = _render(source, target, Gray(), tone="preserve")
    assert report.within
    truth = color.rgb2lab(sepia / 255.0)
    assert np.abs(color.rgb2lab(tifffile.imread(target) / 255.0) - truth).mean() < 1.0
    assert not rendered.has_colour  # a tint is not what the model was asked for


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    source = tmp_path / "in.tif"
    _write(source, _codes(8), "tiff")
    for kind in ("tiff", "png", "jpeg"):
        descriptor = os.open("/dev/full", os.O_RDWR)
        with scans.open_scan(source) as scan, pytest.raises(OutputFull):
            derivative.render(scan, PaintBox(), descriptor, policy=derivative.Policy(kind=kind), origin=ORIGIN)
        os.close(descriptor)


def test_extensions() -> None:
    policy = derivative.Policy()
    assert policy.extension("tiff", b".TIFF") == b".TIFF"
    assert policy.extension("tiff", b".jpg") == b".tif"  # its content is TIFF, whatever its name said
    assert dataclasses.replace(policy, kind="jpeg").extension("tiff", b".tif") == b".jpg"


def test_the_shipped_net_colours_a_picture_the_same_way_twice(tmp_path: Path) -> None:
    if not (registry.SHIPPED / "CURRENT").exists():
        pytest.skip("no weights are shipped yet")
    colorizer = Colorizer(registry.shipped())
    colorizer.warm()
    source = tmp_path / "in.tif"
    y, x = np.mgrid[0:300, 0:400]
    scene = np.where(y < 150 + 20 * np.sin(x / 30), 200 - y / 3, 60 + 30 * np.sin(x * y / 900)).astype(np.uint8)
    _write(source, scene, "tiff")
    first, second = (_render(source, tmp_path / "out.tif", colorizer)[1:] for _ in range(2))
    assert first[1].pixels_sha256 == second[1].pixels_sha256
    assert first[1].within
    assert first[0].has_colour
    for light in (np.full((40, 50), 50, np.float32), np.full((40, 50), np.nan, np.float32)):
        assert np.abs(colorizer.chroma(light)).max() == 0
    for shape in ((1, 1), (1, 900), (900, 1), (40, 1000)):
        chroma = colorizer.chroma(np.random.default_rng(0).uniform(0, 100, shape).astype(np.float32))
        assert np.isfinite(chroma).all()
        assert np.abs(chroma).max() <= 110 * colorizer.version.saturation


MEMORY_PROBE = """
import os, resource, sys
import numpy as np, tifffile
from worker import derivative, scans
scans.set_up_libvips()
class Flat:
    def chroma(self, light, ratio): return np.full((64, 64, 2), 20, np.float32)
def peak(height, path, kind):
    block = (np.random.default_rng(0).integers(0, 65536, (256, 2000))).astype(np.uint16)
    tifffile.imwrite(path, (block for _ in range(height // 256)), shape=(height, 2000), dtype=np.uint16,
                     rowsperstrip=256, photometric="minisblack", metadata=None)
    origin = derivative.Origin(source_name="a", source_sha256="", model_version="", weights_sha256="")
    fd = os.open(path + ".out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    with scans.open_scan(path) as scan:
        rendered = derivative.render(scan, Flat(), fd, policy=derivative.Policy(kind=kind), origin=origin)
        derivative.verify(scan, fd)
    os.close(fd)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
kinds = ("tiff", "png", "jpeg")
print(max(peak(1024, sys.argv[1] + "/a", kind) for kind in kinds))
print(max(peak(6144, sys.argv[1] + "/b", kind) for kind in kinds))
"""


def test_memory_does_not_grow_with_height(tmp_path: Path) -> None:
    """Six times the height (60 MB more of RGB, 130 MB of L* and codes) costs at most 20 MiB more at the peak."""
    command = [sys.executable, "-c", MEMORY_PROBE, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    first, second = map(float, result.stdout.split())
    assert second - first < 20, (first, second)


def test_published_under_its_name(tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    _write(source, _codes(8), "tiff")
    with scans.open_scan(source) as scan, publish.Publication(tmp_path, b"", job_id=1, claim_no=1) as publication:
        derivative.render(scan, PaintBox(), publication.fd, policy=derivative.Policy(), origin=ORIGIN)
        planned = publication.plan(publish.derivative_names(b"in.tif", b".tif"))
        publication.commit(planned)
    assert derivative.verify(source, tmp_path / "in__color.tif").within
