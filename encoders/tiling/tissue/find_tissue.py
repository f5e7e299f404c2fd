"""Tissue rule `otsu-guarded-v1`: Otsu on luminance, and absolute guards, because Otsu always finds a foreground."""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.tissue.pen_marks import find_pen
from encoders.tiling.tissue.scan_frame import Mask, find_frame

# On blank glass Otsu alone marks 11-45 % as tissue. Tissue is at least this much darker than the glass,
# or this much more saturated (of 255).
_DARKER_BY = 15
_MORE_SATURATED_BY = 15
# When the bright half of a picture is itself coloured like this and no lighter than that, there is no glass to
# compare with; then glass is what is pale and light. Yellowed glass is as coloured, but lighter.
_STAINED_SATURATION, _STAINED_LUMINANCE = 50, 215
_GLASS_SATURATION, _GLASS_LUMINANCE = 30, 180


def find_tissue(rgb: NDArray[np.uint8], scanned: Mask | None = None) -> Mask:
    """Bool [h, w] of an RGB overview [h, w, 3] at about 8-16 µm/px. Pen counts as tissue, a scan's frame does not.

    Only what was `scanned`, bool [h, w], says what glass is; the answer is given everywhere.
    """
    luminance = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    saturation = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), dtype=np.uint8)[..., 1]
    lit = ~find_frame(rgb)
    # Ink is darker than any stain: with it in the histogram, pale tissue would count as glass.
    known = lit if scanned is None else lit & scanned
    threshold = _otsu(luminance, known & ~find_pen(rgb))
    bright = lit & (luminance > threshold)
    glass = known & bright
    if not glass.any():
        return np.zeros(luminance.shape, dtype=np.bool_)
    glass_luminance, glass_saturation = np.median(luminance[glass]), np.median(saturation[glass])
    if glass_saturation > _STAINED_SATURATION and glass_luminance < _STAINED_LUMINANCE:
        return lit & ((saturation > _GLASS_SATURATION) | (luminance < _GLASS_LUMINANCE))
    darker = luminance < glass_luminance - _DARKER_BY
    coloured = saturation > glass_saturation + _MORE_SATURATED_BY
    return np.asarray(lit & ~bright & (darker | coloured), dtype=np.bool_)


def _otsu(luminance: NDArray[np.uint8], counted: Mask) -> float:
    """The threshold over the pixels that count; when none does, what nothing is brighter than."""
    if not counted.any():
        return 255.0
    pixels = luminance if counted.all() else luminance[counted]
    threshold, _ = cv2.threshold(pixels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return float(threshold)
