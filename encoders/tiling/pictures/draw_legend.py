"""The strip below the overlay: what its colours mean, how many tiles there are, and how long a millimetre is."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.pictures.overlay_style import (
    PEN_RGB,
    STROKE_RGB,
    TILE_RGB,
    TISSUE_RGB,
    UNSCANNED_DARK_RGB,
    UNSCANNED_RGB,
    hatch,
)

LEGEND_PX = 40
# Of picture; the strip's words need this much. Where something was not scanned, the scale bar needs more.
NARROWEST_PX, _NARROWEST_WITH_ALL_PX = 620, 770
_Rgb = tuple[int, int, int]
_INK: _Rgb = (40, 40, 40)
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5
# A scale bar is at most this part of the strip.
_LONGEST_BAR_SHARE = 0.2


def draw_legend(
    width_px: int, tile_count: int, um_per_px: float | None, *, has_unscanned: bool = False
) -> NDArray[np.uint8]:
    """RGB uint8 [LEGEND_PX, width_px, 3]; without µm per pixel, or room, there is no scale bar."""
    strip = np.full((LEGEND_PX, width_px, 3), 255, dtype=np.uint8)
    strip[0] = _INK
    x = draw_entry(strip, 12, "tissue", TISSUE_RGB, 0.3)
    x = draw_entry(strip, x, f"tiles ({tile_count})", TILE_RGB, 0.0)
    x = _hatched_entry(strip, x, "pen, or not H&E", PEN_RGB, (255, 255, 255), STROKE_RGB)
    if has_unscanned:
        _hatched_entry(strip, x, "not scanned", UNSCANNED_DARK_RGB, UNSCANNED_RGB, UNSCANNED_DARK_RGB)
    if um_per_px is not None and not (has_unscanned and width_px < _NARROWEST_WITH_ALL_PX):
        draw_scale_bar(strip, um_per_px)
    return strip


def bar_um(longest_um: float) -> float:
    """The longest of 1, 2, 5, 10 … µm that is not longer."""
    power = 10.0 ** math.floor(math.log10(longest_um))
    return power * max(step for step in (1, 2, 5) if step * power <= longest_um)


def draw_entry(strip: NDArray[np.uint8], x: int, text: str, colour: _Rgb, opacity: float) -> int:
    """Draws a sample and its name; returns where the next one starts."""
    box = strip[12:29, x : x + 17]
    box[...] = (255 * (1 - opacity) + np.array(colour) * opacity).round()
    cv2.rectangle(strip, (x, 12), (x + 16, 28), colour, 2)
    return write_text(strip, x + 24, text) + 24


def _hatched_entry(strip: NDArray[np.uint8], x: int, text: str, lines: _Rgb, between: _Rgb, stroke: _Rgb) -> int:
    box = strip[12:29, x : x + 17]
    box[...] = between
    box[hatch(box.shape[:2])] = lines
    cv2.rectangle(strip, (x, 12), (x + 16, 28), stroke, 1)
    return write_text(strip, x + 24, text) + 24


def draw_scale_bar(strip: NDArray[np.uint8], um_per_px: float) -> None:
    """At the right end of the strip."""
    width = strip.shape[1]
    length_um = bar_um(_LONGEST_BAR_SHARE * width * um_per_px)
    left = width - 16 - round(length_um / um_per_px)
    text = f"{length_um / 1_000:g} mm"
    text_px = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0]
    write_text(strip, left - 8 - text_px, text)
    cv2.rectangle(strip, (left, 18), (width - 16, 22), _INK, cv2.FILLED)


def write_text(strip: NDArray[np.uint8], x: int, text: str) -> int:
    """Writes and returns where the text ends."""
    cv2.putText(strip, text, (x, 25), _FONT, _FONT_SCALE, _INK, 1, cv2.LINE_AA)
    return int(x + cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0])
