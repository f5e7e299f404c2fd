"""The second look at a slide's colours, when neither its tiles nor its header gave them away: at the picture itself.

Confused colour spaces leave a mark on what is grey, which is most of a slide: glass. YCbCr taken for RGB has Cb = Cr =
128 there, a salmon of hardly any spread; grey RGB taken for YCbCr is magenta with green at 121, however light it was
(128 - 0.344 * 112 - 0.714 * 112 and so on; ITU-T T.871, 7).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.color_conflict import false_colors, negative_picture
from encoders.tiling.tissue.scan_frame import Mask, in_range
from encoders.tiling.tissue.texture import find_texture
from encoders.types import SlideWarning

_SALMON = (190, 120, 120), (255, 136, 136)
_MAGENTA = (244, 110, 244), (255, 133, 255)
# Of texture: glass has at most about this, the palest tissue 4.
_SMOOTH = 2
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

# The ground of a negative: smooth, dark and as grey as glass is, but not black, as what is not lit is.
_DARK_GROUND_SHARE, _DARK_LUMINANCE, _BLACK_LUMINANCE, _MOST_BRIGHT_SHARE = 0.2, 75, 5, 0.005
# Hue of 180 and saturation of 255: yellow-green to cyan, the complements of H&E. No stain has them on most of a slide.
_NEGATIVE_HUES, _COLORED_SATURATION = (30, 95), 40
_DARK_GROUND = SlideWarning(
    "colors_doubted",
    "The picture has a dark ground and no glass, as an inverted one, fluorescence or a dark fill has, and the model "
    "was made for bright-field stains on glass. Send the scan as it was made.",
)


def check_colors(rgb: NDArray[np.uint8], scanned: Mask | None = None) -> tuple[SlideWarning, ...]:
    """Doubts about an RGB overview [h, w, 3], of which `scanned` has pixels, None for all of it.

    Raises ColorConflict where there is no doubt that it is wrong.
    """
    saturation = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), dtype=np.uint8)[..., 1]
    luminance = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    glass = float(((luminance >= _GLASS_LUMINANCE) & (saturation <= _GLASS_SATURATION)).mean())
    for low, high in (_SALMON, _MAGENTA):
        if in_range(rgb, low, high).mean() > max(_LEAST_SHARE, glass):
            raise false_colors()
    if _has_dark_ground(rgb, luminance, scanned):
        return (_DARK_GROUND,)
    if _is_grey(rgb, luminance):
        return (_GREY,)
    if glass > _NO_GLASS_SHARE:
        return ()
    median = float(np.median(saturation))
    if median >= _ABSURD_SATURATION:
        raise false_colors()
    return (_DOUBTED,) if median >= _DOUBTFUL_SATURATION else ()


def _has_dark_ground(rgb: NDArray[np.uint8], luminance: NDArray[np.uint8], scanned: Mask | None) -> bool:
    """Raises ColorConflict where tissue has the complements of a stain's colours on it."""
    known = np.ones(luminance.shape, dtype=np.bool_) if scanned is None else scanned
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    complement = np.asarray(cv2.cvtColor(255 - rgb, cv2.COLOR_RGB2HSV), dtype=np.uint8)[..., 1]
    smooth = known & (find_texture(rgb) <= _SMOOTH)
    ground = smooth & (complement <= _GLASS_SATURATION) & (luminance <= _DARK_LUMINANCE)
    bright = smooth & (hsv[..., 1] <= _GLASS_SATURATION) & (luminance >= _GLASS_LUMINANCE)
    if ground.sum() < _DARK_GROUND_SHARE * known.sum() or np.median(luminance[ground]) <= _BLACK_LUMINANCE:
        return False
    tissue = known & ~ground
    if bright.sum() > _MOST_BRIGHT_SHARE * known.sum() or not tissue.any():
        return False
    colored = tissue & (hsv[..., 1] >= _COLORED_SATURATION)
    green = colored & (hsv[..., 0] >= _NEGATIVE_HUES[0]) & (hsv[..., 0] <= _NEGATIVE_HUES[1])
    if green.sum() > tissue.sum() / 2:
        raise negative_picture()
    return True


def _is_grey(rgb: NDArray[np.uint8], luminance: NDArray[np.uint8]) -> bool:
    stained = rgb[luminance < _STAINED_LUMINANCE]
    if not stained.size:
        return False
    chroma = stained.max(axis=1).astype(np.int16) - stained.min(axis=1)
    return float(np.percentile(chroma, _MOST_COLORED_PERCENT)) <= _GREY_CHROMA
