"""Long thin lines that count as tissue and have no stain's colour: the edge of a coverslip, a scratch, a fine pen.

They are told, never taken out: a line is a few tiles of many, and what is taken out of the mask changes every plan.
Strips of tissue are as thin, but stained.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.tissue.scan_frame import Mask

# Overview pixels, of 8-16 µm: what holds no square of this side is thin, and a line is this long.
_THICK_PX, _LONG_PX = 5, 64
# Saturation of 255: hardly more than glass has. Ink is green or blue, and where a pixel is half glass its hue remains;
# haematoxylin is as blue, but paler. Hues of 180.
_GREY_BEYOND_GLASS, _COLORED, _DEEPLY_COLORED = 12, 25, 90
_GREEN_HUES, _BLUE_HUES = (35, 94), (95, 116)
_GREY_SHARE, _INK_SHARE = 0.6, 0.4
# Fat is a net of thin walls, as pale as glass: it has many meshes, and much more area than a line as long.
_MOST_MESHES, _MOST_AREA_PER_PX = 3, 8


def find_thin_lines(rgb: NDArray[np.uint8], tissue: Mask) -> Mask:
    """Bool [h, w] of an overview [h, w, 3]: the part of `tissue` that lies in such lines."""
    lines = np.zeros(tissue.shape, dtype=np.bool_)
    counted = tissue.astype(np.uint8)
    thick = cv2.morphologyEx(counted, cv2.MORPH_OPEN, np.ones((_THICK_PX, _THICK_PX), np.uint8))
    # The rim of a thick piece is not as thin as it looks.
    near_thick = cv2.dilate(thick, np.ones((_THICK_PX, _THICK_PX), np.uint8)) > 0
    count, labels, stats, _ = cv2.connectedComponentsWithStats((tissue & ~near_thick).astype(np.uint8), connectivity=8)
    long = [label for label in range(1, count) if max(stats[label][2:4]) >= _LONG_PX]
    glass = ~tissue
    if not long or not glass.any():
        return lines
    hue, saturation, _ = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV))
    grey = saturation <= np.median(saturation[glass]) + _GREY_BEYOND_GLASS
    green = (hue >= _GREEN_HUES[0]) & (hue <= _GREEN_HUES[1]) & (saturation >= _COLORED)
    ink = green | ((hue >= _BLUE_HUES[0]) & (hue <= _BLUE_HUES[1]) & (saturation >= _DEEPLY_COLORED))
    for label in long:
        left, top, width, height, _ = stats[label]
        box = np.s_[top : top + height, left : left + width]
        line = labels[box] == label
        if line.sum() > _MOST_AREA_PER_PX * np.hypot(width, height) or _meshes(line) > _MOST_MESHES:
            continue
        if grey[box][line].mean() >= _GREY_SHARE or ink[box][line].mean() >= _INK_SHARE:
            lines[box] |= line
    return lines


def _meshes(line: Mask) -> int:
    """How many areas a line encloses."""
    around = np.pad(~line, 1, constant_values=True).astype(np.uint8)
    count, _ = cv2.connectedComponents(around, connectivity=4)
    return int(count) - 2  # without the line itself and what lies around it
