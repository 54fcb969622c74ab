"""The RGB space that derivatives are written in: sRGB, or the space of any matrix profile given as a file.

Colours are kept inside sRGB and inside the space itself (eciRGB v2, say, lacks some of sRGB's blues); another space
only writes the same colours with other numbers. L* stays relative to D65, as in `worker.profiles`.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model import lab
from worker import profiles

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.unsignedinteger]


@dataclasses.dataclass(frozen=True, eq=False)
class OutputSpace:
    """How Lab becomes the numbers that are written."""

    name: str
    icc: bytes
    #: the profile's own reading of 8 and 16-bit codes; None for sRGB, whose formula is at hand
    tones: tuple[profiles.MatrixTone, profiles.MatrixTone] | None = None

    @property
    def is_srgb(self) -> bool:
        """EXIF knows sRGB by number and all others as uncalibrated."""
        return self.tones is None

    @functools.cached_property
    def limits(self) -> Floats:
        """`Cmax(L, h)` of sRGB and of this space together; see `lab.chroma_limits`."""
        if self.tones is None:
            return lab.chroma_limits()
        return lab.chroma_limits(tuple(tuple(row) for row in self._matrix.tolist()))

    @property
    def _matrix(self) -> npt.NDArray[np.float64]:
        """Linear RGB of this space <- linear sRGB."""
        matrix = np.linalg.inv(self.tones[1].xyz) @ lab.XYZ_FROM_RGB if self.tones else np.eye(3)
        return matrix.astype(np.float64)

    def codes(self, light: Floats, a: Floats, b: Floats, bit_depth: int) -> Codes:
        """The numbers to be written.

        Args:
            light: L* 0..100, `[rows, W]`.
            a: a* within `limits`, `[rows, W]`.
            b: b*, likewise.
            bit_depth: 8 or 16.

        Returns:
            `[rows, W, 3]` uint8 or uint16 whose L*, read through the profile, is `light`.
        """
        rgb = lab.srgb_from_lab(light, a, b)
        if self.tones is None:
            return lab.quantise(rgb, light, bit_depth)
        tone = self.tones[bit_depth == 16]
        linear = lab.decode_srgb(rgb).astype(np.float64) @ self._matrix.T
        largest = 2**bit_depth - 1
        steps = np.arange(largest + 1, dtype=np.float64)
        kind = np.uint16 if bit_depth == 16 else np.uint8
        codes = np.stack(
            [(np.interp(linear[..., i], tone.linear[i], steps) + 0.5).astype(kind) for i in range(3)], axis=-1
        )
        return codes if bit_depth == 16 else _round_by_luminance(codes, light, tone)


def _round_by_luminance(codes: Codes, light: Floats, tone: profiles.MatrixTone) -> Codes:
    """Green moved by -1, 0 or 1 to the luminance meant; see `lab.quantise`."""
    row = tone.xyz[1]
    wanted = lab.luminance(light.astype(np.float64))
    rest = wanted - tone.linear[0][codes[..., 0]] * row[0] - tone.linear[2][codes[..., 2]] * row[2]
    moved = np.clip(codes[..., 1, None].astype(np.int16) + np.array([0, -1, 1], np.int16), 0, 255)
    best = np.abs(tone.linear[1][moved] * row[1] - rest[..., None]).argmin(axis=-1)
    green = np.take_along_axis(moved, best[..., None], axis=-1)[..., 0].astype(np.uint8)
    return np.stack([codes[..., 0], green, codes[..., 2]], axis=-1)


@functools.lru_cache(maxsize=4)
def output_space(path: str = "") -> OutputSpace:
    """The space of a profile file; sRGB without one.

    Args:
        path: of an ICC file.

    Raises:
        ProfileUnusable: no such file, or no RGB profile made of curves and a matrix.
    """
    if not path:
        return OutputSpace("sRGB", profiles.srgb_profile())
    try:
        icc = Path(path).read_bytes()
    except OSError as error:
        raise profiles.ProfileUnusable(f"the profile {path} cannot be read ({error.strerror})") from error
    tones = [profiles.embedded_tone(icc, gray=False, bit_depth=depth) for depth in (8, 16)]
    first, second = tones
    if not isinstance(first, profiles.MatrixTone) or not isinstance(second, profiles.MatrixTone):
        raise profiles.ProfileUnusable(f"the profile {path} is made of tables; give one made of curves and a matrix")
    if any((np.diff(curve) < 0).any() for curve in second.linear):
        raise profiles.ProfileUnusable(f"the profile {path} has a curve that falls")
    return OutputSpace(profiles.describe(icc), icc, (first, second))
