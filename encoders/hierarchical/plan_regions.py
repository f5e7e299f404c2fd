"""Which squares of a slide MLLM-HWSI looks at, and in which order: CLAM's segmentation and grids, with their quirks.

The rule of CLAM's public code (Lu et al., Nature Biomedical Engineering 2021) with the numbers that MLLM-HWSI's
`ext_regions.py` gives it. Everything that a newcomer would question is as published, because order and place of the
regions change the answer:

- each outline of tissue has a grid of its own, from the corner of its bounding box: regions of two of them may overlap;
- outlines come in the order in which OpenCV finds them, from the bottom up, and a grid goes down before it goes right;
- the grid's step is a region at the *step level*, while a region is read at level 0. On a pyramid whose next level is a
  quarter, regions are a sixteenth of the boxes, from their top left corners, and the test for tissue looks elsewhere.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.errors import SlideTooLarge

# Beyond it the published code gives the slide up.
MAX_OVERVIEW_PX: Final = 100_000_000
_MEDIAN_PX: Final = 7
_LEAST_SATURATION: Final = 8
_CLOSE_PX: Final = 4
# Areas are counted in squares, published of 512 level-0 pixels.
_LEAST_TISSUE: Final = 100
_LEAST_HOLE: Final = 16
_MOST_HOLES: Final = 8

Outline = NDArray[np.int32]


@dataclass(frozen=True)
class _Tissue:
    """An outline and the holes in it that are kept, [n, 1, 2] level-0 (x, y)."""

    outline: Outline
    holes: list[Outline]


def plan_regions(
    overview: NDArray[np.uint8],
    width: int,
    height: int,
    step_level: tuple[int, int],
    region_px: int = 4096,
    *,
    unit_px: int = 512,
    edge: Literal["skipped", "white"] = "skipped",
) -> NDArray[np.int64]:
    """The slide as RGB [h, w, 3] to the corners of regions, int64 [R, 2], level-0 (x, y), in published order.

    `width` and `height` are the slide's, in level-0 pixels; `step_level` is the width and height of the level by which
    grids step (published: level 1; the slide's own size steps by a region). `overview` is the whole slide (published:
    the level that OpenSlide finds best for a downsample of 64), what was not scanned in any grey. Tissue is an outline
    of more than a hundred squares of `unit_px`. A region covers `region_px` level-0 pixels a side; one that crosses the
    slide's edge is left out, or kept for who paints white beyond it. [0, 2] where there is no tissue. Raises
    SlideTooLarge beyond MAX_OVERVIEW_PX, ValueError for what cannot be an overview.
    """
    if overview.dtype != np.uint8 or overview.ndim != 3 or overview.shape[2] != 3 or not overview.size:
        raise ValueError(f"An overview is uint8 [h, w, 3], not {overview.dtype} {list(overview.shape)}.")
    if min(width, height, *step_level, region_px, unit_px) < 1:
        raise ValueError("A slide, its levels and its regions have sides of 1 px or more.")
    if overview.shape[0] * overview.shape[1] > MAX_OVERVIEW_PX:
        raise SlideTooLarge(
            "The slide has no level that is small enough to find tissue on. Export it with more levels."
        )
    step = (region_px * int(width / step_level[0]), region_px * int(height / step_level[1]))
    if not all(step):
        raise ValueError(f"The level {step_level} to step by is larger than the slide, {width} x {height}.")
    regions = [corner for tissue in _find_tissue(overview, width, height, unit_px) for corner in _on_grid(tissue, step)]
    planned = np.array(regions, np.int64).reshape(-1, 2)
    last = planned + (region_px if edge == "skipped" else 1)
    inside = (planned >= 0).all(axis=1) & (last <= (width, height)).all(axis=1)
    return planned[inside]


def _find_tissue(overview: NDArray[np.uint8], width: int, height: int, unit_px: int) -> list[_Tissue]:
    """Outlines that are large enough without their holes, in the order in which OpenCV finds them."""
    hsv = cv2.cvtColor(np.ascontiguousarray(overview), cv2.COLOR_RGB2HSV)
    saturation = cv2.medianBlur(hsv[:, :, 1], _MEDIAN_PX)
    _, mask = cv2.threshold(saturation, _LEAST_SATURATION, 255, cv2.THRESH_BINARY)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((_CLOSE_PX, _CLOSE_PX), np.uint8))
    outlines, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return []
    # Not the same number along both sides: a level's sides are rounded.
    scale = (width / overview.shape[1], height / overview.shape[0])
    unit = int(unit_px**2 / (scale[0] * scale[1]))
    parent = hierarchy[0, :, 3]
    children: dict[int, list[int]] = {}
    for index in np.flatnonzero(parent >= 0).tolist():
        children.setdefault(int(parent[index]), []).append(index)
    found = []
    for index in np.flatnonzero(parent == -1).tolist():
        holes = [outlines[child] for child in children.get(index, [])]
        area = cv2.contourArea(outlines[index]) - sum(cv2.contourArea(hole) for hole in holes)
        if area <= _LEAST_TISSUE * unit:
            continue
        largest = sorted(holes, key=cv2.contourArea, reverse=True)[:_MOST_HOLES]
        kept = [_at_level0(hole, scale) for hole in largest if cv2.contourArea(hole) > _LEAST_HOLE * unit]
        found.append(_Tissue(_at_level0(outlines[index], scale), kept))
    return found


def _at_level0(outline: NDArray[Any], scale: tuple[float, float]) -> Outline:
    return np.array(outline * scale, np.int32)


def _on_grid(tissue: _Tissue, step: tuple[int, int]) -> list[tuple[int, int]]:
    """Corners of a grid from the bounding box's corner, column by column, where the box has tissue.

    A box of the grid has tissue when one of four points half-way between its middle and its corners lies in the outline
    or on it, and its middle lies in no hole. For both, its side is the step along x, also along y.
    """
    left, top, width, height = cv2.boundingRect(tissue.outline)
    corners = []
    for x in range(left, left + width, step[0]):
        for y in range(top, top + height, step[1]):
            if _has_tissue(tissue, x, y, step[0]):
                corners.append((x, y))
    return corners


def _has_tissue(tissue: _Tissue, x: int, y: int, side: int) -> bool:
    middle_x, middle_y = x + side // 2, y + side // 2
    shift = side // 2 // 2
    points = [(middle_x + i * shift, middle_y + j * shift) for i in (-1, 1) for j in (-1, 1)]
    if not any(cv2.pointPolygonTest(tissue.outline, (float(a), float(b)), False) >= 0 for a, b in points):
        return False
    middle = (x + side / 2, y + side / 2)
    return not any(cv2.pointPolygonTest(hole, middle, False) > 0 for hole in tissue.holes)
