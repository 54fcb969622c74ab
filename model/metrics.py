"""Measures of colour agreement, in numpy alone. Colours are CIE Lab (D65) float arrays, pictures RGB uint8."""

import numpy as np


def psnr(truth: np.ndarray, ours: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures of one shape: 10·log10(255²/MSE), at most 138 dB."""
    error = np.mean((truth.astype(np.float64) - ours) ** 2)
    return float(10 * np.log10(255.0**2 / max(float(error), 1e-9)))


def ab_l1(truth: np.ndarray, ours: np.ndarray) -> float:
    """Mean |Δa|, |Δb| of two Lab pictures `[H, W, 3]`."""
    return float(np.abs(truth[..., 1:].astype(np.float64) - ours[..., 1:]).mean())


def colourfulness(rgb: np.ndarray) -> float:
    """M3 of an RGB uint8 picture (Hasler & Süsstrunk 2003): 0 gray, 15 slightly, 45 quite, 109 extremely colourful."""
    red, green, blue = (rgb[..., channel].astype(np.float64) for channel in range(3))
    rg, yb = red - green, 0.5 * (red + green) - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def mean_chroma(lab: np.ndarray) -> float:
    """Mean C* = √(a² + b²) of a Lab picture."""
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def agreement(truth_truth: float, ours_ours: float, truth_ours: float) -> float:
    """R = Σab·âb / √(Σab²·Σâb²) from the three sums over all pixels and pictures; -1..1, 0 where either has no colour.

    It does not depend on saturation: neither a dull nor a loud net can win it.
    """
    product = truth_truth * ours_ours
    return truth_ours / float(np.sqrt(product)) if product > 0 else 0.0


def colour_sums(truth: np.ndarray, ours: np.ndarray) -> tuple[float, float, float]:
    """Σab², Σâb² and Σab·âb of two Lab pictures, for `agreement`."""
    x, y = truth[..., 1:].astype(np.float64), ours[..., 1:].astype(np.float64)
    return float((x * x).sum()), float((y * y).sum()), float((x * y).sum())


def ciede2000(truth: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """CIEDE2000 colour difference of Lab arrays `[..., 3]`, with kL = kC = kH = 1.

    Sharma, Wu & Dalal, "The CIEDE2000 color-difference formula", Color Research & Application 30(1), 2005; the numbers
    in the comments are its equations. Checked against its table 1.
    """
    (l_1, a_1, b_1), (l_2, a_2, b_2) = np.moveaxis(truth.astype(np.float64), -1, 0), np.moveaxis(ours, -1, 0)
    chroma = (np.hypot(a_1, b_1) + np.hypot(a_2, b_2)) / 2  # 2, 3
    stretch = 1.5 - 0.5 * np.sqrt(_seventh(chroma))  # 1 + G of 4, 5
    c_1, c_2 = np.hypot(stretch * a_1, b_1), np.hypot(stretch * a_2, b_2)  # 6
    h_1, h_2 = _hue(stretch * a_1, b_1), _hue(stretch * a_2, b_2)  # 7
    grey = c_1 * c_2 == 0
    turn = np.where(grey, 0.0, (h_2 - h_1 + 180) % 360 - 180)  # 10
    d_hue = 2 * np.sqrt(c_1 * c_2) * np.sin(np.radians(turn / 2))  # 11
    light, chroma = (l_1 + l_2) / 2, (c_1 + c_2) / 2  # 12, 13
    hue = np.where(grey, h_1 + h_2, _mean_hue(h_1, h_2))  # 14
    weights = _weights(light, chroma, hue)
    lightness, chromatic, hued = (l_2 - l_1) / weights[0], (c_2 - c_1) / weights[1], d_hue / weights[2]
    return np.sqrt(lightness**2 + chromatic**2 + hued**2 + weights[3] * chromatic * hued)  # 22


def _seventh(chroma: np.ndarray) -> np.ndarray:
    return chroma**7 / (chroma**7 + 25.0**7)


def _hue(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.degrees(np.arctan2(b, a)) % 360


def _mean_hue(h_1: np.ndarray, h_2: np.ndarray) -> np.ndarray:
    total = h_1 + h_2
    apart = np.abs(h_1 - h_2) > 180
    return np.where(apart, np.where(total < 360, total + 360, total - 360), total) / 2


def _weights(light: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> tuple[np.ndarray, ...]:
    """S_L, S_C, S_H and R_T of equations 15 to 21."""
    t = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    s_l = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    turn = 60 * np.exp(-(((hue - 275) / 25) ** 2))
    return s_l, 1 + 0.045 * chroma, 1 + 0.015 * chroma * t, -2 * np.sqrt(_seventh(chroma)) * np.sin(np.radians(turn))
