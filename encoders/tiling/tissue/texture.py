"""Texture where luminance tells nothing: pale tissue has some; glass, its shades and a fill have none.

At 8-16 µm/px the median of |Laplacian| over 5 × 5 pixels is 0-1 on glass (CMU-1, TCGA-CR-7395, synthetic slides), 4 on
the palest tissue and 18-46 on H&E.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.tissue.scan_frame import Mask, find_roughness

Texture = NDArray[np.uint8]

_WINDOW_PX = 5
_SMOOTH, _ROUGH = 1, 3
# Of a component of pale tissue: where it is so thick, at least, and so much of it is rough.
_THICK_PX, _ROUGH_SHARE = 7, 0.4
# Of all that is lit: so much smooth glass can be believed.
_SMOOTH_SHARE = 0.01
# A fill is grey, of one colour exactly, takes at least this part of the picture, and differs from glass by this much.
_GREY, _FILL_SHARE, _OTHER_THAN_GLASS, _SAME_COLOUR = 6, 0.01, 8, 4
_NEAR_TISSUE_PX = 11
# A shade on glass, or its yellow: lighter than this, in areas of this many pixels a side; hue of 180.
_SHADE_LUMINANCE, _SHADE_PX = 180, 9
_YELLOW_HUES, _YELLOW_SATURATION = (12, 35), 90


def find_texture(rgb: NDArray[np.uint8]) -> Texture:
    """Uint8 [h, w] of a picture [h, w, 3]: the median of |Laplacian| around; a lone edge has none."""
    roughness = np.minimum(find_roughness(rgb), 255).astype(np.uint8)
    return np.asarray(cv2.medianBlur(roughness, _WINDOW_PX), dtype=np.uint8)


def find_flat(rgb: NDArray[np.uint8]) -> Mask:
    """Bool [h, w] of a picture [h, w, 3]: pixels whose neighbours two pixels around all have exactly their colour."""
    kernel = np.ones((_WINDOW_PX, _WINDOW_PX), np.uint8)
    return np.asarray((cv2.dilate(rgb, kernel) == cv2.erode(rgb, kernel)).all(axis=2), dtype=np.bool_)


def has_smooth_part(area: Mask, texture: Texture, lit: Mask) -> bool:
    """Whether enough of it is as smooth as glass."""
    return bool((area & (texture <= _SMOOTH)).sum() >= _SMOOTH_SHARE * lit.sum())


def find_pale_tissue(candidates: Mask, texture: Texture, glass: Mask) -> Mask:
    """The connected parts that are thick, and rough where glass is not: inside, away from their borders."""
    rough = texture >= max(_ROUGH, 2 * float(np.median(texture[glass])) + 1)
    opened = cv2.morphologyEx(candidates.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels = cv2.connectedComponents(opened, connectivity=8)
    thick = cv2.erode(opened, np.ones((_THICK_PX, _THICK_PX), np.uint8), borderValue=0) > 0
    sizes, rough_sizes = (np.bincount(labels[part], minlength=count) for part in (thick, thick & rough))
    is_tissue = (sizes > 0) & (rough_sizes >= _ROUGH_SHARE * sizes)
    is_tissue[0] = False
    return np.asarray(is_tissue[labels], dtype=np.bool_)


def find_fill(rgb: NDArray[np.uint8], texture: Texture, frame: Mask) -> Mask:
    """What software filled with a grey or white of its own where nothing was scanned, though it has bytes in the file.

    Glass can be of one colour exactly, too: it is what lies around the tissue. None where there is no telling.
    """
    none = np.zeros(frame.shape, dtype=np.bool_)
    flat = find_flat(rgb) & ~frame & (np.ptp(rgb, axis=2) <= _GREY)
    if flat.mean() < _FILL_SHARE:
        return none
    rough = cv2.morphologyEx((texture >= _ROUGH).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    around = cv2.dilate(rough, np.ones((2 * _NEAR_TISSUE_PX + 1,) * 2, np.uint8)) > 0
    luminance = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.int16)
    near = around & (texture <= _SMOOTH) & ~frame & (luminance >= _SHADE_LUMINANCE)
    if not near.any():
        return none
    glass = np.median(luminance[near])
    fill = none.copy()
    for shade in np.flatnonzero(np.bincount(luminance[flat], minlength=256) >= _FILL_SHARE * flat.size):
        if abs(int(shade) - glass) >= _OTHER_THAN_GLASS:
            core = (flat & (luminance == shade)).astype(np.uint8)
            reach = cv2.dilate(core, np.ones((_WINDOW_PX + 2,) * 2, np.uint8)) > 0
            grey = np.ptp(rgb, axis=2) <= 2 * _GREY
            same = (core > 0) | (reach & grey & (np.abs(luminance - shade) <= _SAME_COLOUR))
            # The pixel across the border is a mixture with glass; beside tissue it is tissue.
            mixed = grey & (luminance >= min(shade, glass) - _SAME_COLOUR) & (luminance <= max(shade, glass))
            fill |= same | (mixed & (cv2.dilate(same.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0))
    return fill


def find_shade(rgb: NDArray[np.uint8], tissue: Mask, texture: Texture, grey_saturation: float) -> Mask:
    """Of what was taken for tissue: thick, light, smooth areas that are grey or yellow, as glass beyond a coverslip."""
    hue, saturation, _ = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV))
    luminance = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    yellow = (hue >= _YELLOW_HUES[0]) & (hue <= _YELLOW_HUES[1]) & (saturation <= _YELLOW_SATURATION)
    glassy = (luminance >= _SHADE_LUMINANCE) & (yellow | (saturation <= grey_saturation))
    kernel = np.ones((_SHADE_PX, _SHADE_PX), np.uint8)
    smooth = tissue & glassy & (texture <= _SMOOTH)
    core = cv2.morphologyEx(smooth.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    if not core.any():
        return np.zeros(tissue.shape, dtype=np.bool_)
    return np.asarray((cv2.dilate(core, kernel) > 0) & tissue & glassy, dtype=np.bool_)
