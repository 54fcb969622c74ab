"""How rare a colour is: one table of weights over coarse bins of (a, b), for choosing photos and for weighing pixels.

Class rebalancing after Zhang, Isola and Efros, "Colorful Image Colorization", ECCV 2016, eq. 4. Their bins are 10 wide
and smoothed by σ = 5; those kept with each packed photo are 16 wide, over which that smoothing would do nothing.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

#: bins per axis of the coarse ab histogram kept with each photo, over -128..128
HISTOGRAM_BINS: Final = 16
#: λ of eq. 4: the part of the uniform distribution in the mixture
_UNIFORM: Final = 0.5


def rarity_table(common: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Weight of a colour in each bin: w ∝ ((1 - λ)·p + λ/Q)^-1 with Σ p·w = 1, λ = ½, Q the bins that occur.

    Args:
        common: p, the share of all pixels in each of the bins, `[N]`, ≥ 0.

    Returns:
        w `[N]`, > 0; a bin that never occurs gets the largest weight there is.

    Raises:
        ValueError: no pixel is in any bin.
    """
    share = common.astype(np.float64)
    if not share.sum() > 0:
        raise ValueError("A histogram without a pixel says nothing about which colours are rare.")
    share = share / share.sum()
    weight = 1 / ((1 - _UNIFORM) * share + _UNIFORM / np.count_nonzero(share))
    return weight / (share * weight).sum()
