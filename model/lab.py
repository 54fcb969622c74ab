"""L*, CIE Lab and sRGB in float, and how much chroma sRGB holds at a given lightness and hue.

Everything is relative to D65, sRGB's own white, so that a neutral pixel has a = b = 0 and L* depends on sRGB's
luminance row alone. Sources: IEC 61966-2-1 (tone curve, primaries), CIE 15:2018 (L*, a*, b*).

OpenCV's float RGB -> Lab is off by up to 0.24 L* in shadows, so that direction is written out here; its Lab -> RGB is
within 0.02/255 (0.006 L*) and four times as quick as NumPy, so that one is used.
"""

import functools

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.floating]

#: linear sRGB <- XYZ (D65, Y of white = 1), IEC 61966-2-1
RGB_FROM_XYZ = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)
XYZ_FROM_RGB = np.linalg.inv(RGB_FROM_XYZ)
WHITE_D65 = XYZ_FROM_RGB.sum(axis=1)
#: relative luminance of linear R, G, B
LUMINANCE_ROW = XYZ_FROM_RGB[1] / XYZ_FROM_RGB[1].sum()

_KAPPA = 24389 / 27  # CIE 15:2018: slope of L* near black
_EPSILON = 216 / 24389  # and where the cube root takes over

_LIGHTNESS_STEPS = 513
_HUE_STEPS = 720
#: `cv2.remap` takes pictures up to 32,766 px wide
_REMAP_COLUMNS = 16_384
#: nothing in sRGB has more chroma than this (blue: 133.8)
_CHROMA_BOUND = 140.0
#: between these L* one 8-bit code is worth up to 0.52 L*: rounding there is made on luminance (`quantise`)
_STEEP_LIGHTNESS = (2.5, 16.0)


def decode_srgb(encoded: Array) -> Array:
    """Code values of sRGB 0..1, any shape -> linear light 0..1 (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0.0) + 0.055) / 1.055) ** 2.4)


def lightness(luminance: Array) -> Array:
    """Relative luminance Y (white = 1), any shape -> L* 0..100 (CIE 15:2018)."""
    return np.where(luminance > _EPSILON, 116.0 * np.cbrt(luminance) - 16.0, _KAPPA * luminance)


def luminance(light: Array) -> Array:
    """L* 0..100, any shape -> relative luminance Y (CIE 15:2018, inverse of `lightness`)."""
    return np.where(light > _KAPPA * _EPSILON, ((light + 16.0) / 116.0) ** 3, light / _KAPPA)


def lab_from_xyz(xyz: Array) -> Array:
    """XYZ relative to D65, `[..., 3]` -> L*, a*, b* `[..., 3]` (CIE 15:2018)."""
    ratio = xyz / WHITE_D65
    f = np.where(ratio > _EPSILON, np.cbrt(ratio), (_KAPPA * ratio + 16.0) / 116.0)
    return np.stack(
        [116.0 * f[..., 1] - 16.0, 500.0 * (f[..., 0] - f[..., 1]), 200.0 * (f[..., 1] - f[..., 2])], axis=-1
    )


def lab_from_srgb(encoded: Array) -> Array:
    """SRGB code values 0..1, `[..., 3]` -> L*, a*, b* `[..., 3]`, float64 accuracy."""
    return lab_from_xyz(decode_srgb(encoded.astype(np.float64)) @ XYZ_FROM_RGB.T)


@functools.cache
def _decoded_codes(bit_depth: int) -> npt.NDArray[np.float64]:
    """Linear light of every code of that depth, `[2^bit_depth]`."""
    return decode_srgb(np.arange(2**bit_depth) / (2**bit_depth - 1)).astype(np.float64)


@functools.cache
def _luminance_shares(bit_depth: int) -> Floats:
    """What every code of R, G, B adds to Y, `[3, 2^bit_depth]`."""
    return (_decoded_codes(bit_depth)[None] * LUMINANCE_ROW[:, None]).astype(np.float32)


def srgb_lightness(codes: npt.NDArray[np.unsignedinteger]) -> Floats:
    """L* 0..100 of sRGB integers `[..., 3]` (uint8 or uint16), within 1e-4: `[...]`."""
    red, green, blue = _luminance_shares(8 * codes.dtype.itemsize)
    y = red[codes[..., 0]] + green[codes[..., 1]] + blue[codes[..., 2]]
    return lightness(y).astype(np.float32)


def _linear_from_lab(light: Array, a: Array, b: Array) -> Array:
    """Lab -> linear sRGB `[..., 3]`, not clipped."""
    fy = (light + 16.0) / 116.0
    f = np.stack([fy + a / 500.0, fy, fy - b / 200.0], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * WHITE_D65
    return xyz @ RGB_FROM_XYZ.T


@functools.cache
def chroma_limits(also: tuple[tuple[float, ...], ...] | None = None) -> Floats:
    """`Cmax(L, h)`: the chroma sRGB holds at each lightness and hue.

    Found by bisection, then lowered to the least of each node's neighbours, so that interpolating between nodes never
    promises chroma that is not there. Own method; see `compress_chroma`.

    Args:
        also: another RGB space that must hold the colour too: its linear RGB <- linear sRGB, three rows of three.

    Returns:
        `[513, 722]` float32: rows L* 0..100, columns hue 0..2π in 720 steps, the first two repeated at the end.
    """
    grid = np.linspace(0.0, 100.0, _LIGHTNESS_STEPS)[:, None]
    hue = np.linspace(0.0, 2 * np.pi, _HUE_STEPS, endpoint=False)[None]
    low, high = np.zeros((_LIGHTNESS_STEPS, _HUE_STEPS)), np.full((_LIGHTNESS_STEPS, _HUE_STEPS), _CHROMA_BOUND)
    cos, sin = np.cos(hue), np.sin(hue)
    for _ in range(14):
        middle = (low + high) / 2
        rgb = _linear_from_lab(grid + 0 * hue, middle * cos, middle * sin)
        inside = ((rgb >= 0.0) & (rgb <= 1.0)).all(axis=-1)
        if also is not None:
            other = rgb @ np.array(also).T
            # 1e-6: black and white themselves, after a matrix of rounded numbers
            inside &= ((other >= -1e-6) & (other <= 1.0 + 1e-6)).all(axis=-1)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    wrapped = np.concatenate([low[:, -1:], low, low[:, :1]], axis=1).astype(np.float32)
    least: Floats = cv2.erode(wrapped, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)[:, 1:-1]
    limits = np.concatenate([least, least[:, :2]], axis=1)
    limits.setflags(write=False)
    return limits


def compress_chroma(light: Floats, a: Floats, b: Floats, limits: Floats | None = None) -> tuple[Floats, Floats]:
    """Chroma brought to what sRGB can show at this lightness, along its hue: L* survives, nothing is clipped in RGB.

    Args:
        light: L* 0..100, `[rows, W]` (two dimensions, float32).
        a: a*, same shape.
        b: b*, same shape.
        limits: from `chroma_limits`; None for sRGB's.

    Returns:
        a* and b*, same shape; unchanged where they already fit.
    """
    chroma, hue = cv2.cartToPolar(a, b)
    across, down = hue * np.float32(_HUE_STEPS / (2 * np.pi)), light * np.float32((_LIGHTNESS_STEPS - 1) / 100)
    allowed, table = np.empty_like(chroma), chroma_limits() if limits is None else limits
    for left in range(0, light.shape[1], _REMAP_COLUMNS):
        part = (slice(None), slice(left, left + _REMAP_COLUMNS))
        allowed[part] = cv2.remap(table, across[part], down[part], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # `remap` rounds positions to 1/32 of a node; the last 0.2 % pays for that
    scale = np.minimum(np.float32(1.0), allowed * np.float32(0.998) / np.maximum(chroma, np.float32(1e-3)))
    return a * scale, b * scale


def srgb_from_lab(light: Floats, a: Floats, b: Floats) -> Floats:
    """Lab `[rows, W]` each, float32 -> sRGB code values 0..1 `[rows, W, 3]`; clips what lies outside."""
    rgb: Floats = cv2.cvtColor(cv2.merge([light, a, b]), cv2.COLOR_Lab2RGB)
    return rgb


def quantise(rgb: Floats, light: Floats, bit_depth: int) -> npt.NDArray[np.unsignedinteger]:
    """Integers of 8 or 16 bits whose L* is `light`.

    Plain rounding at 8 bits moves L* by up to 0.26 in the shadows; there the green code is the one of three neighbours
    that brings the luminance nearest. In the rest plain rounding stays under 0.24 (a gray pixel is the worst case,
    because the slope of the tone curve is concave in linear light).

    Args:
        rgb: sRGB code values 0..1, `[rows, W, 3]`.
        light: the L* meant, `[rows, W]`.
        bit_depth: 8 or 16.

    Returns:
        `[rows, W, 3]` uint8 or uint16.
    """
    if bit_depth == 16:
        return (rgb * np.float32(65535.0) + np.float32(0.5)).astype(np.uint16)
    codes = (rgb * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)
    dark = (light > _STEEP_LIGHTNESS[0]) & (light < _STEEP_LIGHTNESS[1])
    if dark.any():
        codes[dark] = _round_by_luminance(codes[dark], luminance(light[dark].astype(np.float64)))
    return codes


def _round_by_luminance(codes: npt.NDArray[np.uint8], wanted: Array) -> npt.NDArray[np.uint8]:
    """Green codes `[N]` of `[N, 3]` moved by -1, 0 or 1 to the luminance `[N]` wanted."""
    light = _decoded_codes(8)
    rest = light[codes[:, 0]] * LUMINANCE_ROW[0] + light[codes[:, 2]] * LUMINANCE_ROW[2]
    candidates = np.clip(codes[:, 1, None].astype(np.int16) + np.array([0, -1, 1], np.int16), 0, 255)
    error = np.abs(rest[:, None] + light[candidates] * LUMINANCE_ROW[1] - wanted[:, None])
    best = np.take_along_axis(candidates, error.argmin(axis=1)[:, None], axis=1)[:, 0]
    return np.stack([codes[:, 0], best.astype(np.uint8), codes[:, 2]], axis=1)
