"""Smooth random planes: over a whole map, or repeating without a seam."""

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


def relative_noise(rng: np.random.Generator, shape: tuple[int, int], features: int) -> Plane:
    """Float32 of this shape, about -2 … 2, with so many features along the longer side whatever the shape."""
    nodes = tuple(max(2, round(features * side / max(shape))) + 3 for side in shape)
    coarse = rng.standard_normal(nodes, dtype=np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def wrapped_noise(rng: np.random.Generator, side: int, sigma_x: float, sigma_y: float) -> Plane:
    """Float32 [side, side] of deviation 1 that repeats without a seam, smooth over these sigmas in pixels."""
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
    along_y, along_x = np.fft.fftfreq(side)[:, np.newaxis], np.fft.rfftfreq(side)
    spectrum *= np.exp(-2 * np.pi**2 * ((sigma_x * along_x) ** 2 + (sigma_y * along_y) ** 2))
    plane = np.fft.irfft2(spectrum, (side, side))
    return np.asarray(plane / plane.std(), dtype=np.float32)
