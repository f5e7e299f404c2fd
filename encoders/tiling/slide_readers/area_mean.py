"""Means over factor × factor pixels, rounded up at the half: OpenCV's, and one of our own for the usual factor of 2."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def area_mean(pixels: Pixels, out: Pixels) -> None:
    """Fills `out` [height, width, 3] from RGB a whole factor larger a side; both may have gaps between their rows."""
    cv2.resize(pixels, out.shape[1::-1], dst=out, interpolation=cv2.INTER_AREA)


def opencv_mean_2x2(rgba: Pixels, out: Pixels) -> None:
    """As `mean_2x2`, on every machine. OpenCV has vector code for the mean of four channels, none of three."""
    means = cv2.resize(rgba, out.shape[1::-1], interpolation=cv2.INTER_AREA)
    cv2.cvtColor(means, cv2.COLOR_RGBA2RGB, dst=out)


def _fastest_mean_2x2() -> Callable[[Pixels, Pixels], None]:
    try:
        from encoders.tiling.slide_readers.compiled_mean import mean_2x2
    except ImportError:  # no compiler when Eyepiece was installed, or no AVX2 now
        return opencv_mean_2x2
    return mean_2x2


mean_2x2 = _fastest_mean_2x2()
"""Fills `out` [height, width, 3] from RGBA [2 · height, 2 · width, 4]; the same to the bit whoever computes it."""
IS_COMPILED = mean_2x2 is not opencv_mean_2x2
