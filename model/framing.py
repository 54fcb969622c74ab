"""How a picture is laid onto the net's input: squashed into a square, or into a rectangle near its own shape.

A square tells the net more than padding does (DeOldify's finding) and is what the net was trained on; a rectangle of
about the same area keeps things' proportions. Rectangles come from a short list, so that TensorFlow traces a bounded
number of shapes and memory does not grow. Which of both serves is measured (`photochrom evaluate --sizes`) and recorded
in the version's `config.json` as `framing`.
"""

import functools
from typing import Final, Literal

Framing = Literal["square", "aspect"]

#: sides are multiples of this, the net's coarsest stride
STRIDE_PX: Final = 32
#: a picture longer than this many times its width is covered by several windows
SQUASH_RATIO: Final = 2.0
#: a rectangle has the square's area up to this part, so that it costs about as much
_AREA_TOLERANCE: Final = 1 / 8


@functools.cache
def rectangles(side_px: int) -> tuple[tuple[int, int], ...]:
    """The inputs that stand for a square of `side_px` with the framing `aspect`.

    Args:
        side_px: the serving size, a multiple of 32.

    Returns:
        (height, width) of each, up to 2:1 either way, multiples of 32; the square first.
    """
    sides = range(STRIDE_PX, 2 * side_px + 1, STRIDE_PX)
    landscape = [
        (short, long)
        for long in sides
        for short in sides
        if short < long <= SQUASH_RATIO * short and abs(short * long / side_px**2 - 1) <= _AREA_TOLERANCE
    ]
    return ((side_px, side_px), *landscape, *((long, short) for short, long in landscape))


def input_size(side_px: int, framing: Framing, ratio: float) -> tuple[int, int]:
    """Height and width of the net's input for a picture.

    Args:
        side_px: the version's serving size, a multiple of 32.
        framing: "square" always takes the square; "aspect" the rectangle whose shape is nearest.
        ratio: the picture's width / height, > 0.
    """
    if framing == "square":
        return side_px, side_px

    def distance(size: tuple[int, int]) -> tuple[float, int]:
        """How far a rectangle is stretched from the picture's shape; of equal ones the smaller comes first."""
        shape = size[1] / size[0]
        return max(shape / ratio, ratio / shape), size[0] * size[1]

    return min(rectangles(side_px), key=distance)
