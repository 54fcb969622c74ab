"""What old film and its scanning do to lightness, simulated on L alone so that the colours to learn stay true."""

import cv2
import numpy as np

#: shares of linear red, green, blue that a film sees: panchromatic, orthochromatic (blind to red), blue-sensitive
FILMS = np.array([[0.2126, 0.7152, 0.0722], [0.05, 0.65, 0.30], [0.0, 0.15, 0.85], [0.40, 0.45, 0.15]], np.float32)


def film_lightness(rgb: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """L* as one of `FILMS` would have drawn the scene; sRGB float32 `[H, W, 3]` in 0..1 -> float32 `[H, W]` in 0..100.

    Luo et al. 2021 (Time-Travel Rephotography) on why: film before about 1906 was blind to red.
    """
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    seen = linear @ FILMS[random.choice(len(FILMS), p=[0.5, 0.25, 0.1, 0.15])]
    root = np.cbrt(np.maximum(seen, 0.008856))
    return np.where(seen > 0.008856, 116 * root - 16, 903.3 * seen).astype(np.float32)


def age(light: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Fading, tone, softness, grain and scratches, each sometimes; L* float32 `[H, W]` in 0..100 -> the same."""
    aged = light / 100
    if random.random() < 0.6:
        aged = np.clip(aged, 0, 1) ** np.exp(random.uniform(-0.45, 0.45))
    if random.random() < 0.4:
        black, white = random.uniform(0, 0.15), random.uniform(0.8, 1.0)
        aged = black + aged * (white - black)
    if random.random() < 0.25:
        aged = cv2.GaussianBlur(aged, (0, 0), random.uniform(0.4, 1.2))
    if random.random() < 0.5:
        grain = random.standard_normal(aged.shape, np.float32) * random.uniform(0.005, 0.05)
        aged = aged + (cv2.GaussianBlur(grain, (0, 0), 0.7) * 1.8 if random.random() < 0.5 else grain)
    if random.random() < 0.08:
        aged = _scratched(aged, random)
    return np.clip(aged * 100, 0, 100).astype(np.float32)


def _scratched(light: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = light.shape
    scratched = light.astype(np.float32).copy()
    for _ in range(random.integers(1, 4)):
        left, right = (int(v) for v in random.integers(0, width, 2))
        cv2.line(scratched, (left, 0), (right, height - 1), float(random.uniform(0.7, 1.0)), 1, cv2.LINE_AA)
    return scratched
