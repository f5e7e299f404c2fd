"""What a model of levels was given, drawn over the slide: regions, chosen patches by rank, cells by kind.

The whole slide, or one of its regions. It shows what was given, not why anything was answered, and says so below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.hierarchical.cell_kinds import CELL_KINDS, CELL_RGB
from encoders.hierarchical.levels import FoundCells
from encoders.tiling.pictures.draw_legend import LEGEND_PX, NARROWEST_PX, draw_entry, draw_scale_bar, write_text
from encoders.tiling.pictures.overlay_style import TILE_RGB

REGION_RGB = TILE_RGB
# From the first rank to the last.
FIRST_RANK_RGB, LAST_RANK_RGB = (0, 95, 75), (120, 225, 195)
_WHITE = (255, 255, 255)
# Narrower patches hide the slide under their outlines, or have no room for their rank or for cells.
_SMALLEST_OPEN_PX, _SMALLEST_RANKED_PX, _SMALLEST_WITH_CELLS_PX = 12.0, 28.0, 24.0
_SMALLEST_NUMBERED_PX, _SMALLEST_THICK_PX = 40.0, 120.0
# Cells of about so many pixels are outlined, smaller ones filled.
_SMALLEST_OUTLINED_PX = 5.0
# Level-0 pixels per pixel from which cells are drawn with thin lines.
_THIN_FROM: Final = 1.5
_SUBPIXEL_BITS: Final = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SCALE_BAR_PX = 260
_Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class LevelsPicture:
    """What is drawn, in level-0 pixels of the slide.

    `regions` are corners [R, 2] with their `numbers`, `patches` [R, k, 2] by rank; `cells` are those to draw, None
    where nobody knows them; `cell_counts` [kinds] is what the legend says. `mpp` is µm per level-0 pixel, None if
    unknown.
    """

    regions: NDArray[np.int32]
    numbers: Sequence[int]
    region_px: int
    patches: NDArray[np.int64]
    patch_px: int
    cells: FoundCells | None
    cell_counts: NDArray[np.int64] | None
    mpp: float | None


def draw_levels(
    pixels: NDArray[np.uint8], corner: tuple[int, int], px_level0: float, drawn: LevelsPicture
) -> NDArray[np.uint8]:
    """RGB uint8: the picture [h, w, 3], whose first pixel lies at `corner` and which has `px_level0` level-0 pixels per
    pixel, with the levels over it and a legend below."""
    picture = pixels.copy()
    patch_px = drawn.patch_px / px_level0
    places = (drawn.patches - corner) / px_level0
    _draw_patches(picture, places, patch_px)
    with_cells = drawn.cells is not None and patch_px >= _SMALLEST_WITH_CELLS_PX
    if drawn.cells is not None and with_cells:
        _draw_cells(picture, drawn.cells, corner, px_level0)
    regions, region_px = (drawn.regions - corner) / px_level0, drawn.region_px / px_level0
    _outline_regions(picture, regions, region_px)
    if patch_px >= _SMALLEST_RANKED_PX:
        _write_ranks(picture, places, patch_px)
    if region_px >= _SMALLEST_NUMBERED_PX:
        _write_regions(picture, regions, drawn.numbers)
    legend = _legend(max(NARROWEST_PX, picture.shape[1]), drawn, px_level0, with_cells)
    missing = legend.shape[1] - picture.shape[1]
    return np.vstack([np.pad(picture, ((0, 0), (0, missing), (0, 0)), constant_values=255), legend])


def _draw_patches(picture: NDArray[np.uint8], places: NDArray[np.float64], side: float) -> None:
    """[R, k, 2]; the first ranks last, where regions overlap."""
    thickness = cv2.FILLED if side < _SMALLEST_OPEN_PX else 1 if side < _SMALLEST_RANKED_PX else 2
    for rank in reversed(range(places.shape[1])):
        colour = _rank_rgb(rank, places.shape[1])
        for (left, top), (right, bottom) in zip(
            np.round(places[:, rank]).astype(int).tolist(), np.round(places[:, rank] + side).astype(int).tolist(),
            strict=True,
        ):  # fmt: skip
            cv2.rectangle(picture, (left, top), (max(left, right - 1), max(top, bottom - 1)), colour, thickness)


def _rank_rgb(rank: int, count: int) -> _Rgb:
    share = rank / max(1, count - 1)
    first, last = np.array(FIRST_RANK_RGB), np.array(LAST_RANK_RGB)
    red, green, blue = np.round(first * (1 - share) + last * share).astype(int).tolist()
    return red, green, blue


def _draw_cells(picture: NDArray[np.uint8], cells: FoundCells, corner: tuple[int, int], px_level0: float) -> None:
    # The middle of level-0 pixel i is i + 0.5, and that of the picture's pixel j is j + 0.5.
    points = (cells.outline - corner + 0.5) / px_level0 - 0.5
    fixed = np.round(points * 2**_SUBPIXEL_BITS).astype(np.int32)
    for kind, begin, end in zip(
        cells.kind.tolist(), cells.outline_start[:-1].tolist(), cells.outline_start[1:].tolist(), strict=True
    ):
        outline, colour = fixed[begin:end, None], CELL_RGB[CELL_KINDS[kind]]
        size = float(np.ptp(points[begin:end], axis=0).max())
        if size < _SMALLEST_OUTLINED_PX:
            cv2.fillPoly(picture, [outline], colour, cv2.LINE_AA, _SUBPIXEL_BITS)
        else:
            cv2.polylines(
                picture,
                [outline],
                True,
                colour,
                2 if size > 14 and px_level0 < _THIN_FROM else 1,
                cv2.LINE_AA,
                _SUBPIXEL_BITS,
            )


def _outline_regions(picture: NDArray[np.uint8], corners: NDArray[np.float64], side: float) -> None:
    thickness = 1 if side < _SMALLEST_THICK_PX else 2
    for left, top in np.round(corners).astype(int).tolist():
        cv2.rectangle(picture, (left, top), (left + round(side) - 1, top + round(side) - 1), REGION_RGB, thickness)


def _write_regions(picture: NDArray[np.uint8], corners: NDArray[np.float64], numbers: Sequence[int]) -> None:
    """At the upper left corner, white on the region's colour."""
    for (left, top), number in zip(np.round(corners).astype(int).tolist(), numbers, strict=True):
        _label(picture, f"{number}", left + 4, top + 16, (_WHITE, REGION_RGB), 0.5)


def _write_ranks(picture: NDArray[np.uint8], places: NDArray[np.float64], side: float) -> None:
    """At the lower left corner, where no region has its number."""
    for region in places:
        for rank, (left, top) in enumerate(np.round(region).astype(int).tolist()):
            _label(picture, f"{rank + 1}", left + 4, top + round(side) - 5, (FIRST_RANK_RGB, _WHITE), 0.4)


def _label(picture: NDArray[np.uint8], text: str, x: int, y: int, colours: tuple[_Rgb, _Rgb], scale: float) -> None:
    """Text on a plate: the stain is as dark as any ink."""
    ink, plate = colours
    width, height = cv2.getTextSize(text, _FONT, scale, 1)[0]
    cv2.rectangle(picture, (x - 3, y - height - 3), (x + width + 2, y + 3), plate, cv2.FILLED)
    cv2.putText(picture, text, (x, y), _FONT, scale, ink, 1, cv2.LINE_AA)


def _legend(width: int, drawn: LevelsPicture, px_level0: float, with_cells: bool) -> NDArray[np.uint8]:
    """Rows of entries, as many as they need."""
    count = drawn.patches.shape[1]
    regions = f"region {drawn.numbers[0]}" if len(drawn.numbers) == 1 else f"regions ({len(drawn.numbers)})"
    entries: list[tuple[str, _Rgb, float]] = [(regions, REGION_RGB, 0.0)]
    entries += [("chosen patches: rank 1", FIRST_RANK_RGB, 0.4), (f"rank {count}", LAST_RANK_RGB, 0.4)][: min(count, 2)]
    rows = _rows(width, entries, _SCALE_BAR_PX)
    if drawn.mpp is not None:
        draw_scale_bar(rows[0], drawn.mpp * px_level0)
    if drawn.cell_counts is not None:
        drawn_kinds = zip(CELL_KINDS, drawn.cell_counts.tolist(), strict=True)
        cells = [(f"{kind} ({number:,})", CELL_RGB[kind], 0.0) for kind, number in drawn_kinds]
        rows += _rows(width, [*cells[1:], cells[0]], 0)
    rows += _rows(width, [], 0)
    write_text(rows[-1], 12, _what_it_is(drawn, with_cells))
    return np.vstack(rows)


def _what_it_is(drawn: LevelsPicture, with_cells: bool) -> str:
    text = "What the model was given, not why it answered as it did."
    if drawn.cells is None and drawn.cell_counts is None:
        return f"{text} Nobody knows which cells."
    return text if with_cells else f"{text} Cells are too small here: draw one region."


def _rows(width: int, entries: list[tuple[str, _Rgb, float]], kept_free: int) -> list[NDArray[np.uint8]]:
    """Entries one after the other, in as many strips as they need; the first keeps room at its right."""
    rows = [_strip(width)]
    x = 12
    for text, colour, opacity in entries:
        ends = x + 24 + cv2.getTextSize(text, _FONT, 0.5, 1)[0][0]
        if x > 12 and ends > width - (kept_free if len(rows) == 1 else 0) - 12:
            rows.append(_strip(width))
            x = 12
        x = draw_entry(rows[-1], x, text, colour, opacity)
    return rows


def _strip(width: int) -> NDArray[np.uint8]:
    return np.full((LEGEND_PX, width, 3), 255, np.uint8)
