"""Tissue rule `otsu-guarded-v1`: Otsu on luminance, and absolute guards, because Otsu always finds a foreground."""

import cv2
import numpy as np
from numpy.typing import NDArray

# On blank glass Otsu alone marks 11-45 % as tissue. Tissue is at least this much darker than the glass,
# or this much more saturated (of 255).
_DARKER_BY = 15
_MORE_SATURATED_BY = 15


def find_tissue(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Bool [h, w] of an RGB overview [h, w, 3] at about 8-16 µm/px. Pen counts as tissue."""
    luminance = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
    threshold, _ = cv2.threshold(luminance, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = luminance > threshold
    if not bright.any():
        return np.zeros(luminance.shape, dtype=np.bool_)
    glass_luminance, glass_saturation = np.median(luminance[bright]), np.median(saturation[bright])
    darker = luminance < glass_luminance - _DARKER_BY
    coloured = saturation > glass_saturation + _MORE_SATURATED_BY
    return np.asarray(~bright & (darker | coloured), dtype=np.bool_)
