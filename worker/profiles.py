"""From code values to L*: the tone curve of an embedded ICC profile, or the curve assumed where there is none.

Curves and matrices are read from the profile and applied in float; libvips' and Little CMS's integer transforms are off
by 0.2 to 0.4 L* in shadows. A profile built on a colour table (A2B) goes through Little CMS in float. L* is taken
relative to D65 (chromatic adaptation by Bradford), so that an sRGB profile gives what sRGB's formula gives.
Sources: ICC.1:2022 (curveType 10.6, parametricCurveType 10.18, monochrome and matrix models F.2, F.3).
"""

import dataclasses
import struct
from collections.abc import Callable
from typing import Final, Protocol

import imagecodecs
import numpy as np
import numpy.typing as npt

from model import lab

Codes = npt.NDArray[np.unsignedinteger]
Floats = npt.NDArray[np.float32]
Curve = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

#: of a description; whoever made the file chose it, and it goes into the record and the sidecar
_LONGEST_NAME_CHARS: Final = 100
#: D50 -> D65 (ICC's connection space to sRGB's white), Bradford; Lindbloom, "Chromatic Adaptation"
_D65_FROM_D50: Final = np.array(
    [[0.9555766, -0.0230393, 0.0631636], [-0.0282895, 1.0099416, 0.0210077], [0.0122982, -0.0204830, 1.3299098]]
)
#: tone curves that may be assumed for a picture without a profile; names are settings
ASSUMED: Final[dict[str, Curve]] = {
    "srgb": lambda v: np.asarray(lab.decode_srgb(v)),
    "gamma1.8": lambda v: v**1.8,
    "gamma2.2": lambda v: v**2.2,
    "linear": lambda v: v,
}


class Tone(Protocol):
    """What turns the code values of one picture into L* (and into Lab, for judging whether it is gray)."""

    @property
    def name(self) -> str:
        """How code values become L*, for the record."""

    def lightness(self, codes: Codes) -> Floats:
        """Codes `[rows, W]` (gray) or `[rows, W, 3]` -> L* 0..100 `[rows, W]`."""

    def lab(self, codes: Codes) -> Floats:
        """Codes -> L*, a*, b* `[rows, W, 3]`."""


@dataclasses.dataclass(frozen=True)
class GrayTone:
    """Gray codes through one curve, tabulated per code."""

    name: str
    table: Floats  # L* of every code, [2^bit_depth]

    def lightness(self, codes: Codes) -> Floats:
        """Codes `[rows, W]` -> L* `[rows, W]`."""
        return self.table[codes]

    def lab(self, codes: Codes) -> Floats:
        """Codes `[rows, W]` -> L*, 0, 0 `[rows, W, 3]`."""
        light = self.lightness(codes)
        return np.stack([light, np.zeros_like(light), np.zeros_like(light)], axis=-1)


@dataclasses.dataclass(frozen=True)
class MatrixTone:
    """RGB codes through three curves and a matrix."""

    name: str
    linear: Floats  # linear light of every code of R, G, B, [3, 2^bit_depth]
    xyz: npt.NDArray[np.float64]  # XYZ (D65) <- linear RGB, [3, 3]

    def _light(self, codes: Codes) -> list[Floats]:
        return [self.linear[i][codes[..., i]] for i in range(3)]

    def lightness(self, codes: Codes) -> Floats:
        """Codes `[rows, W, 3]` -> L* `[rows, W]`."""
        red, green, blue = self._light(codes)
        row = self.xyz[1].astype(np.float32)
        return lab.lightness(red * row[0] + green * row[1] + blue * row[2]).astype(np.float32)

    def lab(self, codes: Codes) -> Floats:
        """Codes `[rows, W, 3]` -> L*, a*, b* `[rows, W, 3]`."""
        linear = np.stack(self._light(codes), axis=-1).astype(np.float64)
        return lab.lab_from_xyz(linear @ self.xyz.T).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class TableTone:
    """Codes through the profile's colour table, by Little CMS in float, relative colorimetric."""

    name: str
    profile: bytes
    gray: bool
    code_limit: int

    def lab(self, codes: Codes) -> Floats:
        """Codes `[rows, W]` or `[rows, W, 3]` -> L*, a*, b* (D50, as the table says) `[rows, W, 3]`."""
        device = codes.astype(np.float32) / np.float32(self.code_limit)
        result: Floats = imagecodecs.cms_transform(
            device, self.profile, imagecodecs.cms_profile("lab4"), colorspace="gray" if self.gray else "rgb",
            outcolorspace="lab", outdtype=np.float32, intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
        )  # fmt: skip
        return result

    def lightness(self, codes: Codes) -> Floats:
        """Codes -> L* `[rows, W]`."""
        return np.clip(self.lab(codes)[..., 0], 0.0, 100.0)


@dataclasses.dataclass(frozen=True)
class LabTone:
    """CIE L*a*b* codes of a TIFF (TIFF 6.0, section 23): L* full range, a* and b* in two's complement."""

    bit_depth: int
    name: str = "lab"

    def lightness(self, codes: Codes) -> Floats:
        """Codes `[rows, W, 3]` -> L* `[rows, W]`."""
        return codes[..., 0].astype(np.float32) * np.float32(100.0 / (2**self.bit_depth - 1))

    def lab(self, codes: Codes) -> Floats:
        """Codes `[rows, W, 3]` -> L*, a*, b* `[rows, W, 3]`; 16-bit a* and b* are in 1/256."""
        signed = codes.astype(np.int32)
        signed -= (signed >= 2 ** (self.bit_depth - 1)) * 2**self.bit_depth
        chroma = signed[..., 1:].astype(np.float32) / np.float32(1 if self.bit_depth == 8 else 256)
        return np.concatenate([self.lightness(codes)[..., None], chroma], axis=-1)


class ProfileUnusable(ValueError):
    """The profile is damaged, or made for another kind of picture."""


def assumed_tone(name: str, gray: bool, bit_depth: int) -> Tone:
    """The tone of a picture without a profile.

    Args:
        name: a key of `ASSUMED`; for RGB always sRGB's curve and primaries.
        gray: one channel, or RGB.
        bit_depth: 8 or 16.
    """
    if gray:
        return GrayTone(f"{name} (assumed)", _tabulate(ASSUMED[name], bit_depth))
    return _matrix_tone("srgb (assumed)", [ASSUMED["srgb"]] * 3, lab.XYZ_FROM_RGB, bit_depth)


def gamma_tone(gamma: float, bit_depth: int) -> Tone:
    """The tone of a gray PNG that declares `code = light ^ gamma`."""
    return GrayTone(f"png gamma {gamma:.5f}", _tabulate(lambda v: v ** (1 / gamma), bit_depth))


def embedded_tone(profile: bytes, gray: bool, bit_depth: int) -> Tone:
    """The tone of a picture with an embedded ICC profile.

    Args:
        profile: the profile's bytes.
        gray: the picture has one channel; otherwise RGB.
        bit_depth: 8 or 16.

    Raises:
        ProfileUnusable: damaged, or for another kind of picture.
    """
    try:
        return _embedded(profile, gray, bit_depth)
    except (struct.error, IndexError, KeyError, ValueError, OverflowError) as error:
        raise ProfileUnusable(f"the embedded ICC profile cannot be used ({error})") from error


def describe(profile: bytes) -> str:
    """The profile's own description as far as it prints, cut to a name's length, or "unnamed"."""
    try:
        data = _tags(profile).get(b"desc", b"")
    except (struct.error, IndexError, ProfileUnusable):
        return "damaged"
    text = data[12:].split(b"\0", 1)[0].decode("latin-1") if data[:4] == b"desc" else ""
    if data[:4] == b"mluc" and len(data) >= 28:
        length, offset = struct.unpack(">II", data[20:28])
        text = data[offset : offset + length].decode("utf-16-be", "replace")
    return "".join(filter(str.isprintable, text[:_LONGEST_NAME_CHARS])) or "unnamed"


def _embedded(profile: bytes, gray: bool, bit_depth: int) -> Tone:
    space, tags = profile[16:20], _tags(profile)
    if space != (b"GRAY" if gray else b"RGB "):
        raise ProfileUnusable(f"it is for {space.decode('latin-1').strip()} pictures, not for this one")
    name = describe(profile)
    if tags.keys() & {b"A2B0", b"A2B1"}:
        tone = TableTone(f"icc table: {name}", profile, gray, 2**bit_depth - 1)
        tone.lightness(np.zeros((1, 1) if gray else (1, 1, 3), np.uint16))  # a broken table is found here
        return tone
    if gray:
        curve = _curve(tags[b"kTRC"])
        if profile[20:24] == b"Lab ":  # the curve gives L* itself (ICC.1 F.2)
            codes = np.linspace(0.0, 1.0, 2**bit_depth)
            return GrayTone(f"icc gray: {name}", (np.clip(curve(codes), 0, 1) * 100).astype(np.float32))
        return GrayTone(f"icc gray: {name}", _tabulate(curve, bit_depth))
    columns = [_xyz(tags[key]) for key in (b"rXYZ", b"gXYZ", b"bXYZ")]
    curves = [_curve(tags[key]) for key in (b"rTRC", b"gTRC", b"bTRC")]
    return _matrix_tone(f"icc rgb: {name}", curves, _D65_FROM_D50 @ np.array(columns).T, bit_depth)


def _matrix_tone(name: str, curves: list[Curve], xyz: npt.NDArray[np.float64], bit_depth: int) -> MatrixTone:
    codes = np.linspace(0.0, 1.0, 2**bit_depth)
    linear = np.stack([np.clip(curve(codes), 0, 1) for curve in curves]).astype(np.float32)
    white = lab.WHITE_D65 / xyz.sum(axis=1)  # s15Fixed16 rounding: white is made exactly white
    return MatrixTone(name, linear, xyz * white[:, None])


def _tabulate(curve: Curve, bit_depth: int) -> Floats:
    """L* of every code behind a curve from code 0..1 to relative luminance."""
    light = np.clip(curve(np.linspace(0.0, 1.0, 2**bit_depth)), 0.0, 1.0)
    return lab.lightness(light).astype(np.float32)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    if profile[36:40] != b"acsp":
        raise ProfileUnusable("it has no ICC signature")
    (count,) = struct.unpack(">I", profile[128:132])
    if count > 200:
        raise ProfileUnusable(f"it claims {count} tags")
    entries = [struct.unpack(">4sII", profile[132 + 12 * i : 144 + 12 * i]) for i in range(count)]
    return {name: profile[offset : offset + length] for name, offset, length in entries}


def _xyz(data: bytes) -> npt.NDArray[np.float64]:
    return np.array(struct.unpack(">iii", data[8:20]), dtype=np.float64) / 65536


def _curve(data: bytes) -> Curve:
    """A `curv` or `para` tag as a function of codes 0..1."""
    if data[:4] == b"curv":
        (count,) = struct.unpack(">I", data[8:12])
        if count == 0:
            return lambda v: v
        values = np.frombuffer(data[12 : 12 + 2 * count], ">u2").astype(np.float64)
        if count == 1:
            exponent = values[0] / 256
            return lambda v: v**exponent
        if len(values) != count:
            raise ProfileUnusable("its curve is cut off")
        return lambda v: np.interp(v, np.linspace(0.0, 1.0, count), values / 65535)
    if data[:4] != b"para":
        raise ProfileUnusable("its curve is of an unknown type")
    return _parametric(data)


def _parametric(data: bytes) -> Curve:
    """ICC.1 10.18: five forms of `(a·v + b)^g + c`, below `d` a line."""
    (form,) = struct.unpack(">H", data[8:10])
    number = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}[form]
    p = np.array(struct.unpack(f">{number}i", data[12 : 12 + 4 * number])) / 65536
    g, a, b, c, d, e, f = np.pad(p, (0, 7 - number))
    if form == 0:
        a = 1.0
    start = -b / a if form in (1, 2) else d
    slope = c if form in (3, 4) else 0.0
    below, above = {2: (c, c), 4: (f, e)}.get(form, (0.0, 0.0))
    return lambda v: np.where(v >= start, np.maximum(a * v + b, 0.0) ** g + above, slope * v + below)


def srgb_profile() -> bytes:
    """An ICC v4 profile of sRGB, built from its formula: matrix, parametric curve, the same bytes every time.

    Source: ICC.1:2022 8.3 (matrix display profile), IEC 61966-2-1.
    """
    to_d50 = np.linalg.inv(_D65_FROM_D50) @ lab.XYZ_FROM_RGB

    def fixed(*values: float) -> bytes:
        """ICC's s15Fixed16Numbers."""
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    def text(value: str) -> bytes:
        """A multiLocalizedUnicodeType with one record, in American English."""
        raw = value.encode("utf-16-be")
        return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(raw), 28) + raw

    curve = b"para" + struct.pack(">IHH", 0, 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    tags = {
        b"desc": text("sRGB"),
        b"cprt": text("No copyright, use freely"),
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249),
        b"chad": b"sf32\0\0\0\0" + fixed(*np.linalg.inv(_D65_FROM_D50).ravel()),
        **{b"rgb"[i : i + 1] + b"XYZ": b"XYZ \0\0\0\0" + fixed(*to_d50[:, i]) for i in range(3)},
        **{b"rgb"[i : i + 1] + b"TRC": curve for i in range(3)},
    }
    table, body, place = b"", b"", {}
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        if data not in place:
            place[data] = start + len(body)
            body += data + b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", place[data], len(data))
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0" * 4, 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28 + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
