"""Tissue rule `otsu-guarded-v2`: Otsu on luminance, absolute guards, and a second look by texture where Otsu fails.

Otsu always finds a foreground, hence the guards. It finds one only, hence the second look: beside a dark chromogen pale
tissue counts as glass, and where software blacked the background there is no glass to compare with.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.tissue.pen_marks import find_pen
from encoders.tiling.tissue.scan_frame import Mask, find_frame
from encoders.tiling.tissue.texture import find_fill, find_pale_tissue, find_shade, find_texture, has_smooth_part

# On blank glass Otsu alone marks 11-45 % as tissue. Tissue is at least this much darker than the glass,
# or this much more saturated (of 255).
_DARKER_BY = 15
_MORE_SATURATED_BY = 15
# When the bright half of a picture is itself coloured like this and no lighter than that, there is no glass to
# compare with; then glass is what is pale and light. Yellowed glass is as coloured, but lighter.
_STAINED_SATURATION, _STAINED_LUMINANCE = 50, 215
_GLASS_SATURATION, _GLASS_LUMINANCE = 30, 180
# Where so much of the picture is black, the background may have been blacked up to the tissue. What is brightest then
# is glass only when it is as pale and light as this.
_BLACKED_SHARE, _BRIGHTEST_PERCENT = 0.05, 98
_RING_SATURATION, _RING_LUMINANCE = 40, 220
# A picture that varies by less shows one thing only.
_ONE_THING = 30
# The second look counts when the first one missed this part of what it found.
_MUCH_MISSED = 0.10
# What has texture may be so near to glass.
_PALER_BY, _LESS_SATURATED_BY = 6, 8


@dataclass(frozen=True)
class _Glass:
    """Luminance and saturation that glass has in this picture."""

    luminance: float
    saturation: float

    def differs(self, picture: "_Planes", darker_by: int, more_saturated_by: int) -> Mask:
        """Bool [h, w]: by so much darker or more coloured than this glass."""
        darker = picture.luminance < self.luminance - darker_by
        return np.asarray(darker | (picture.saturation > self.saturation + more_saturated_by), dtype=np.bool_)


@dataclass(frozen=True)
class _Planes:
    """Uint8 [h, w] each."""

    luminance: NDArray[np.uint8]
    saturation: NDArray[np.uint8]

    def median(self, area: Mask) -> _Glass:
        return _Glass(float(np.median(self.luminance[area])), float(np.median(self.saturation[area])))


def find_tissue(rgb: NDArray[np.uint8], scanned: Mask | None = None) -> Mask:
    """Bool [h, w] of an RGB overview [h, w, 3] at about 8-16 µm/px. Pen counts as tissue, a scan's frame does not.

    Only what was `scanned`, bool [h, w], says what glass is; the answer is given everywhere.
    """
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    planes = _Planes(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), np.asarray(hsv[..., 1], np.uint8))
    texture = find_texture(rgb)
    frame = find_frame(rgb)
    lit = ~(frame | find_fill(rgb, texture, frame))
    known = lit if scanned is None else lit & scanned
    # Ink is darker than any stain: with it in the histogram, pale tissue would count as glass.
    counted = known & ~find_pen(rgb)
    bright = lit & (planes.luminance > _otsu(planes.luminance, counted))
    glass = known & bright
    if not glass.any():
        return np.zeros(lit.shape, dtype=np.bool_)
    look = planes.median(glass)
    if look.saturation > _STAINED_SATURATION and look.luminance < _STAINED_LUMINANCE:
        return lit & ((planes.saturation > _GLASS_SATURATION) | (planes.luminance < _GLASS_LUMINANCE))
    brightest = glass & (planes.luminance > _otsu(planes.luminance, glass & counted))
    if frame.mean() >= _BLACKED_SHARE and not has_smooth_part(brightest, texture, lit):
        return _within_black(planes, lit, known)
    tissue = lit & ~bright & look.differs(planes, _DARKER_BY, _MORE_SATURATED_BY)
    tissue &= ~find_shade(rgb, tissue, texture, look.saturation + _MORE_SATURATED_BY)
    if brightest.any():
        pale = planes.median(brightest).differs(planes, _PALER_BY, _LESS_SATURATED_BY)
        missed = find_pale_tissue(lit & ~tissue & pale, texture, brightest)
        if (missed & known).sum() >= _MUCH_MISSED * (tissue & known).sum():
            tissue |= missed
    return np.asarray(tissue, dtype=np.bool_)


def _within_black(planes: _Planes, lit: Mask, known: Mask) -> Mask:
    """Tissue where at most a thin ring of glass is left around it: all that is lit, but what is as light as glass."""
    luminance = planes.luminance[known]
    darkest, highest = np.percentile(luminance, [5, _BRIGHTEST_PERCENT])
    glass = planes.median(known & (planes.luminance >= highest))
    is_glass = glass.luminance >= _RING_LUMINANCE and glass.saturation <= _RING_SATURATION
    if is_glass or highest - darkest < _ONE_THING:
        return lit & glass.differs(planes, _DARKER_BY, _MORE_SATURATED_BY)
    return lit


def _otsu(luminance: NDArray[np.uint8], counted: Mask) -> float:
    """The threshold over the pixels that count; when none does, what nothing is brighter than."""
    if not counted.any():
        return 255.0
    pixels = luminance if counted.all() else luminance[counted]
    threshold, _ = cv2.threshold(pixels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return float(threshold)
