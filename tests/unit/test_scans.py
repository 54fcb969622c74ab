"""Judging a picture from its pixels, shrinking it in strips, and reading headers that lie."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import lab
from worker import profiles
from worker.classes import InputClass, chroma_spread, classify
from worker.errors import ScanError
from worker.headers import Header, read_header
from worker.survey import survey


def _judge(rgb: np.ndarray) -> InputClass:
    values = lab.lab_from_srgb(rgb).astype(np.float32)
    return classify(values, np.histogram(values[..., 0], 400, (0, 100))[0])


@pytest.fixture
def scene() -> np.ndarray:
    """Gray 0..1, [200, 300]."""
    soft = cv2.GaussianBlur(np.random.default_rng(0).random((200, 300)), (0, 0), 8)
    return (soft - soft.min()) / np.ptp(soft)


def test_gray_and_near_neutral(scene: np.ndarray) -> None:
    gray = np.repeat(scene[..., None], 3, axis=2)
    assert _judge(gray * [1.0, 0.99, 0.985]) == InputClass.NEAR_NEUTRAL
    values = np.dstack([scene * 100, 0 * scene, 0 * scene]).astype(np.float32)
    assert classify(values, np.histogram(values[..., 0], 400, (0, 100))[0]) == InputClass.GRAY


@pytest.mark.parametrize("tint", [(1.0, 0.85, 0.62), (0.55, 0.75, 1.0), (1.0, 0.95, 0.8)])
def test_one_tint_is_a_tone(scene: np.ndarray, tint: tuple[float, ...]) -> None:
    assert _judge(scene[..., None] * np.array(tint)) == InputClass.TONED


def test_split_toning_is_a_tone(scene: np.ndarray) -> None:
    """Blue shadows and yellow lights: one colour at each lightness."""
    weight = scene[..., None]
    assert _judge(weight * (weight * [1.0, 0.95, 0.7] + (1 - weight) * [0.7, 0.8, 1.0])) == InputClass.TONED


def test_colours_of_its_own(scene: np.ndarray) -> None:
    rgb = np.repeat(scene[..., None], 3, axis=2)
    rgb[:, 150:] *= [1.0, 0.7, 0.5]
    rgb[:, :150] *= [0.5, 0.8, 1.0]
    assert _judge(rgb) == InputClass.COLOUR


def test_blank_and_bitonal() -> None:
    assert _judge(np.full((50, 50, 3), 0.7)) == InputClass.BLANK
    text = np.ones((200, 200, 3))
    text[::10, 20:180] = 0.05
    assert _judge(text) == InputClass.BITONAL


def test_spread_of_a_tint_is_small(scene: np.ndarray) -> None:
    values = lab.lab_from_srgb(scene[..., None] * np.array([1.0, 0.8, 0.6])).astype(np.float32)
    assert chroma_spread(values) < 1.5


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 50))
def test_the_small_copy_is_the_mean(height: int, width: int, rows: int) -> None:
    codes = np.random.default_rng(height).integers(0, 256, (height, width)).astype(np.uint8)
    header = Header(kind="tiff", width=width, height=height, bit_depth=8)
    tone = profiles.assumed_tone("srgb", gray=True, bit_depth=8)
    strips = (codes[top : top + rows] for top in range(0, height, rows))
    small, histogram = survey(strips, header, tone)
    assert small.shape[0] <= max(512, min(height, 8192))
    assert histogram.sum() == codes.size
    assert small[..., 0].mean() == pytest.approx(tone.lightness(codes).mean(), abs=1e-2)


def _header(data: bytes) -> Header:
    return read_header(lambda at, count: data[at : at + max(count, 0)], len(data))


TIFF = struct.pack("<2sHIH", b"II", 42, 8, 6) + b"".join(
    struct.pack("<HHII", tag, 4, 1, value) for tag, value in
    ((256, 10), (257, 10), (258, 8), (262, 1), (273, 86), (279, 100))
) + bytes(4) + bytes(100)  # fmt: skip


def test_a_small_tiff_header() -> None:
    header = _header(TIFF)
    assert (header.width, header.height, header.bit_depth, header.ends_early) == (10, 10, 8, False)
    assert _header(TIFF[:-20]).ends_early


def test_offsets_with_a_sign_may_be_negative() -> None:
    entry = struct.pack("<HHII", 273, 4, 1, 86)
    assert TIFF.count(entry) == 1
    assert not _header(TIFF.replace(entry, struct.pack("<HHIi", 273, 9, 1, 86))).ends_early
    assert _header(TIFF.replace(entry, struct.pack("<HHIi", 273, 9, 1, -1))).ends_early


def test_a_tag_that_is_there_a_thousand_times_is_read_once() -> None:
    """As a rule of TIFF the first counts; of a long value the others would cost their length each."""
    entries = [TIFF[10 + 12 * at : 22 + 12 * at] for at in range(6)] + [struct.pack("<HHII", 700, 1, 100, 0)] * 1000
    data = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(entries) + bytes(200)
    lengths: list[int] = []

    def read(at: int, count: int) -> bytes:
        lengths.append(count)
        return data[at : at + count]

    assert read_header(read, len(data)).xmp == data[:100]
    assert lengths.count(100) == 1


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_header_breaks_the_reader(data: st.DataObject) -> None:
    seeds = [TIFF, b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(60), b"MM\0+" + bytes(60)]
    raw = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(0, 12))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = _header(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except ScanError as error:
        assert str(error).endswith(".")
    else:
        assert header.width > 0


def test_a_chain_of_directories_that_bites_its_tail() -> None:
    looped = bytearray(TIFF)
    looped[8 + 2 + 72 : 8 + 2 + 76] = struct.pack("<I", 8)
    with pytest.raises(ScanError, match="no end"):
        _header(bytes(looped))


@pytest.mark.parametrize(("data", "words"), [
    (b"", "empty"), (bytes(5000), "zeros"), (b"GIF89a", "GIF"), (b"%PDF-1.4", "PDF"), (b"hello", "no picture"),
    (b"\0\0\0\x18ftypheic", "HEIF"),
])  # fmt: skip
def test_other_files_are_named(data: bytes, words: str) -> None:
    with pytest.raises(ScanError, match=words):
        _header(data)


@pytest.mark.parametrize("form", range(5))
def test_parametric_curves(form: int) -> None:
    g, a, b, c, d, e, f = 2.4, 0.95, 0.05, 0.08, 0.04, 0.01, 0.002
    values = [(g,), (g, a, b), (g, a, b, c), (g, a, b, c, d), (g, a, b, c, d, e, f)][form]
    data = (
        b"para" + struct.pack(">IHH", 0, form, 0) + struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))
    )
    x = np.linspace(0, 1, 50)
    expected = [
        x**g, (a * x + b) ** g, (a * x + b) ** g + c,
        np.where(x >= d, (a * x + b) ** g, c * x), np.where(x >= d, (a * x + b) ** g + e, c * x + f),
    ][form]  # fmt: skip
    np.testing.assert_allclose(profiles._curve(data)(x), expected, atol=1e-4)


def test_our_profile_is_srgb() -> None:
    tone = profiles.embedded_tone(profiles.srgb_profile(), gray=False, bit_depth=8)
    codes = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    np.testing.assert_allclose(tone.lightness(codes), lab.srgb_lightness(codes), atol=5e-3)
    assert profiles.srgb_profile() == profiles.srgb_profile()
