"""The second look at a slide's colours, when neither its tiles nor its header gave them away: at the picture itself.

Confused colour spaces leave a mark on what is grey, which is most of a slide: glass. YCbCr taken for RGB has Cb = Cr =
128 there, a salmon of hardly any spread; grey RGB taken for YCbCr is magenta with green at 121, however light it was
(128 - 0.344 * 112 - 0.714 * 112 and so on; ITU-T T.871, 7).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.color_conflict import false_colors
from encoders.tiling.tissue.scan_frame import in_range
from encoders.types import SlideWarning

_SALMON = (190, 120, 120), (255, 136, 136)
_MAGENTA = (244, 110, 244), (255, 133, 255)
# Of the picture, and more than there is glass: half of a slide is glass, and no tissue is of one colour like this.
_LEAST_SHARE = 0.2
_GLASS_LUMINANCE, _GLASS_SATURATION = 180, 40
_NO_GLASS_SHARE = 0.001
# Medians of saturation, of 255. Tissue without glass: H&E 60-120, strong eosin 150, trichrome and DAB up to 190.
_ABSURD_SATURATION, _DOUBTFUL_SATURATION = 225, 195
_DOUBTED = SlideWarning(
    "colors_doubted",
    "The picture shows no glass and is more saturated than most stains: RGB and YCbCr may be confused in the file.",
)
# What is darker than glass and has no colour at all, but for what JPEG adds: no stain is like that.
_STAINED_LUMINANCE, _GREY_CHROMA, _MOST_COLORED_PERCENT = 200, 10, 95
_GREY = SlideWarning(
    "colors_doubted",
    "The picture is grey throughout, and the model was made for stains in colour. Send the scan in colour.",
)


def check_colors(rgb: NDArray[np.uint8]) -> tuple[SlideWarning, ...]:
    """Doubts about an RGB overview [h, w, 3]; raises ColorConflict where there is no doubt that it is wrong."""
    saturation = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), dtype=np.uint8)[..., 1]
    luminance = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    glass = float(((luminance >= _GLASS_LUMINANCE) & (saturation <= _GLASS_SATURATION)).mean())
    for low, high in (_SALMON, _MAGENTA):
        if in_range(rgb, low, high).mean() > max(_LEAST_SHARE, glass):
            raise false_colors()
    if _is_grey(rgb, luminance):
        return (_GREY,)
    if glass > _NO_GLASS_SHARE:
        return ()
    median = float(np.median(saturation))
    if median >= _ABSURD_SATURATION:
        raise false_colors()
    return (_DOUBTED,) if median >= _DOUBTFUL_SATURATION else ()


def _is_grey(rgb: NDArray[np.uint8], luminance: NDArray[np.uint8]) -> bool:
    stained = rgb[luminance < _STAINED_LUMINANCE]
    if not stained.size:
        return False
    chroma = stained.max(axis=1).astype(np.int16) - stained.min(axis=1)
    return float(np.percentile(chroma, _MOST_COLORED_PERCENT)) <= _GREY_CHROMA
