"""The tissue rule `otsu-guarded-v1`, which encoder ids of before name; to compare with, not to be used."""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.tissue.pen_marks import find_pen
from encoders.tiling.tissue.scan_frame import find_frame


def find_tissue_v1(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Bool [h, w] of an RGB overview [h, w, 3]."""
    luminance = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    saturation = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), dtype=np.uint8)[..., 1]
    lit = ~find_frame(rgb)
    counted = lit & ~find_pen(rgb)
    threshold = 255.0
    if counted.any():
        threshold, _ = cv2.threshold(luminance[counted], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = lit & (luminance > threshold)
    if not bright.any():
        return np.zeros(luminance.shape, dtype=np.bool_)
    glass_luminance, glass_saturation = np.median(luminance[bright]), np.median(saturation[bright])
    if glass_saturation > 50 and glass_luminance < 215:
        return np.asarray(lit & ((saturation > 30) | (luminance < 180)), dtype=np.bool_)
    differs = (luminance < glass_luminance - 15) | (saturation > glass_saturation + 15)
    return np.asarray(lit & ~bright & differs, dtype=np.bool_)
