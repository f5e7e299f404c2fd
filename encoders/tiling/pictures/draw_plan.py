"""Mask and plan over a picture of the slide, for a person to judge what will be encoded."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.pictures.draw_legend import LEGEND_PX, NARROWEST_PX, draw_legend
from encoders.tiling.pictures.overlay_style import PEN_RGB, STROKE_RGB, TILE_RGB, TISSUE_RGB, hatch
from encoders.tiling.tissue.read_overview import Overview
from encoders.tiling.tissue.scan_frame import Mask

# The stain must stay readable under both.
_TISSUE_OPACITY, _GRID_OPACITY = 0.16, 0.55
# Narrower tiles would hide the slide under their outlines: then only the outline of all of them is drawn.
_SMALLEST_OUTLINED_PX = 5.0


@dataclass(frozen=True)
class PlanPicture:
    """What is drawn. `tissue` and `pen` are bool [h, w], a pixel covering `mask_px_level0` level-0 pixels a side.

    `coords` are the planned tiles' corners, int64 [N, 2] in level-0 (x, y), and `tile_px_level0` their side; `mpp` is
    µm per level-0 pixel, None where nobody knows it.
    """

    tissue: Mask
    pen: Mask
    mask_px_level0: float
    coords: NDArray[np.int64]
    tile_px_level0: float
    mpp: float | None


def largest_picture(max_px: int) -> tuple[int, int]:
    """(width, height) that a slide's picture may have for the drawing to be at most `max_px` a side."""
    return max_px, max_px - LEGEND_PX


def draw_plan(slide: Overview, drawn: PlanPicture) -> NDArray[np.uint8]:
    """RGB uint8: the slide with tissue tinted, pen hatched and tiles outlined, and a legend below it."""
    picture = slide.pixels.copy()
    tissue = _at_picture(drawn.tissue, drawn.mask_px_level0, slide)
    pen = _at_picture(drawn.pen, drawn.mask_px_level0, slide)
    _tint(picture, tissue & ~pen)
    _outline_tiles(picture, drawn.coords / slide.px_level0, drawn.tile_px_level0 / slide.px_level0)
    _mark_pen(picture, pen)
    mpp = None if drawn.mpp is None else drawn.mpp * slide.px_level0
    width = max(NARROWEST_PX, picture.shape[1])
    legend = draw_legend(width, len(drawn.coords), mpp, has_unscanned=slide.covered is not None)
    return np.vstack([_widened(picture, width), legend])


def _at_picture(mask: Mask, mask_px_level0: float, slide: Overview) -> Mask:
    """The mask with the picture's pixels, its edges smoothed rather than stepped."""
    ratio = slide.px_level0 / mask_px_level0
    to_mask = np.array([[ratio, 0, (ratio - 1) / 2], [0, ratio, (ratio - 1) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = slide.pixels.shape[1], slide.pixels.shape[0]
    share = cv2.warpAffine(mask.astype(np.float32), to_mask, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(share >= 0.5, dtype=np.bool_)


def _tint(picture: NDArray[np.uint8], area: Mask) -> None:
    _mix(picture, area, TISSUE_RGB, _TISSUE_OPACITY)
    _contour(picture, area, TISSUE_RGB)


def _mark_pen(picture: NDArray[np.uint8], pen: Mask) -> None:
    picture[pen & hatch(pen.shape)] = PEN_RGB
    _contour(picture, pen, STROKE_RGB, 4)
    _contour(picture, pen, PEN_RGB, 2)


def _outline_tiles(picture: NDArray[np.uint8], corners: NDArray[np.float64], side: float) -> None:
    """Tiles by their corners and side in the picture's pixels: faint lines between them, a strong one around all."""
    starts, ends = np.round(corners).astype(np.int32), np.round(corners + side).astype(np.int32)
    planned = np.zeros(picture.shape[:2], dtype=np.bool_)
    lines = np.zeros(picture.shape[:2], dtype=np.uint8)
    for (left, top), (right, bottom) in zip(starts.tolist(), ends.tolist(), strict=True):
        planned[top:bottom, left:right] = True
        cv2.rectangle(lines, (left, top), (right - 1, bottom - 1), 1)
    if side >= _SMALLEST_OUTLINED_PX:
        _mix(picture, lines > 0, TILE_RGB, _GRID_OPACITY)
    _contour(picture, planned, TILE_RGB, 2)


def _mix(picture: NDArray[np.uint8], area: Mask, colour: tuple[int, int, int], opacity: float) -> None:
    picture[area] = (picture[area] * (1 - opacity) + np.array(colour) * opacity).round().astype(np.uint8)


def _contour(picture: NDArray[np.uint8], area: Mask, colour: tuple[int, int, int], thickness: int = 1) -> None:
    outlines, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, outlines, -1, colour, thickness)


def _widened(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
