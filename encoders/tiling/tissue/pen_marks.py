"""Marks of a pen on the glass, told by colours that H&E does not have. They are flagged, never taken out.

Ink over tissue is tissue to every threshold, and a pathologist marks what matters. Other stains than H&E have such
colours too (the green of a trichrome): then the flag says only that the colours are not those of H&E.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.tissue.scan_frame import Mask, find_dark, find_frame, find_roughness, in_range

# Lowest and highest hue (of 180), saturation and value (of 255), as OpenCV has them. Measured at about 8 µm/px on H&E
# (CMU-1, TCGA-CR-7395, synthetic slides: 99.8 % of hues within 94-171, saturation below 195) and on the pen marks
# among histolab's test pictures, on glass and on tissue.
_Bounds = tuple[tuple[int, int, int], tuple[int, int, int]]
_GREEN: _Bounds = (35, 70, 0), (94, 255, 255)
_BLUE: _Bounds = (95, 100, 0), (116, 255, 255)
# Blue ink over haematoxylin, whose own blue is paler.
_DEEP_BLUE: _Bounds = (117, 150, 0), (121, 255, 255)
# Beyond eosin and blood on both sides of red.
_BLUISH_RED: _Bounds = (175, 165, 100), (180, 255, 255)
_YELLOWISH_RED: _Bounds = (0, 165, 100), (8, 255, 255)
# Ink is smooth: the median of |Laplacian| of luminance over a mark. Green and blue ink are told by hue, also where
# tissue shows through; blood and crowded nuclei come close to red and black ones.
_COLD_ROUGHNESS, _RED_ROUGHNESS, _BLACK_ROUGHNESS = 40.0, 14.0, 14.0
# Strokes are at least this many overview pixels (8 µm or so) thick, marks this many in all.
_THICKNESS_PX, _AREA_PX = 3, 48


def find_pen(rgb: NDArray[np.uint8]) -> Mask:
    """Bool [h, w] of an RGB overview [h, w, 3] at about 8-16 µm/px: green, blue, red and black ink.

    Whole marks that are large and smooth enough; the paler rim of a stroke is left out.
    """
    hsv = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), dtype=np.uint8)
    cold = in_range(hsv, *_GREEN) | in_range(hsv, *_BLUE) | in_range(hsv, *_DEEP_BLUE)
    red = in_range(hsv, *_BLUISH_RED) | in_range(hsv, *_YELLOWISH_RED)
    dark = find_dark(rgb)
    black = dark & ~find_frame(rgb) if dark.any() else dark
    cold, red = _marks(cold, rgb, _COLD_ROUGHNESS), _marks(red, rgb, _RED_ROUGHNESS)
    return cold | red | _marks(black, rgb, _BLACK_ROUGHNESS)


def pen_share(pen: Mask, tissue: Mask) -> float:
    """The part of what counts as tissue that lies under pen marks, 0 … 1."""
    return float((pen & tissue).sum() / max(1, tissue.sum()))


def _marks(coloured: Mask, rgb: NDArray[np.uint8], roughest: float) -> Mask:
    """The pixels of one ink's colour that belong to a mark: thick, large, smooth."""
    if not coloured.any():
        return coloured
    kernel = np.ones((_THICKNESS_PX, _THICKNESS_PX), dtype=np.uint8)
    thick = cv2.morphologyEx(coloured.view(np.uint8), cv2.MORPH_OPEN, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(thick, connectivity=8)
    marks = np.zeros(labels.shape, dtype=np.bool_)
    for label in range(1, count):
        left, top, width, height, area = stats[label]
        if area >= _AREA_PX:
            box = np.s_[top : top + height, left : left + width]
            mark = labels[box] == label
            marks[box] |= mark & bool(np.median(find_roughness(rgb[box])[mark]) <= roughest)
    return marks
