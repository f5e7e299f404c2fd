"""What is doubtful about planned tiles, at no more than a look at the overview and at a few of them."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.plan_tiles import AreaMask, area_share
from encoders.tiling.tissue.read_overview import Overview
from encoders.tiling.tissue.scan_frame import Mask, find_unlit
from encoders.tiling.tissue.thin_lines import find_thin_lines
from encoders.types import SlideWarning, TilePlan
from model_store.contracts.tile_encoder import TilingSpec

# Of a tile, and of the tiles: less is the rim where a background was blacked close to the tissue (7 % of the tiles at
# 31 px from it; 10 and 11 % in regions that were cut out of CMU-1 and of a drawn slide).
_MOSTLY_BLACK, _MANY_BLACK = 0.5, 0.1
# Tissue counts from 15 grey levels of 255 on; where half of it is no further from glass, as much may lie below.
_PALE = 20
# Mean squares of differences in a picture enlarged by repeating its pixels: between copies none, after JPEG of quality
# 75 to 90 up to a tenth of those between pixels; on CMU-1 and TCGA-CR-7395 at least a half, however compressed.
# Enlarged smoothly, a picture cannot be told from one that is out of focus.
_REPEATS, _LIKE_COPIES = (4, 3, 2), 0.1
# Mean square of the differences between pixels: less is noise.
_LEAST_SQUARE = 4.0


def doubt_overview(overview: Overview, tissue: Mask, plan: TilePlan, tiling: TilingSpec) -> Iterator[SlideWarning]:
    """Planned tiles that show lines, black, or tissue as pale as glass; `tissue` is bool [h, w] of the overview."""
    rgb, total = overview.pixels, len(plan.coords)

    def share(area: Mask) -> NDArray[np.float64]:
        return area_share(AreaMask(area, overview.px_level0), plan)

    lines = find_thin_lines(rgb, tissue)
    rest = share(tissue & ~lines)
    count = int(((rest < tiling.min_tissue_fraction) | (rest == 0)).sum()) if lines.any() else 0
    if count:
        yield SlideWarning(
            "tissue_doubted",
            f"{count} of {total} tiles show a thin line without a stain's colour rather than tissue, such as a pen or "
            "the edge of a coverslip; they are encoded like the rest.",
        )
    black = find_unlit(rgb)
    count = int((share(black) >= _MOSTLY_BLACK).sum()) if black.any() else 0
    if count and count >= _MANY_BLACK * total:
        yield SlideWarning(
            "tissue_doubted",
            f"{count} of {total} tiles are black by half or more, where the background was cut away, and the model was "
            "made for tissue on glass. Send the scan as it was made.",
        )
    contrast = _contrast(rgb, tissue)
    if contrast is not None and contrast <= _PALE:
        yield SlideWarning(
            "tissue_doubted",
            f"What counts as tissue is hardly darker or more coloured than glass, by {contrast:.0f} of 255 levels in "
            "the middle: paler tissue may be left out. Look at the thumbnail, or scan the slide darker.",
        )


def doubt_detail(tiles: Iterable[NDArray[np.uint8]]) -> Iterator[SlideWarning]:
    """Of some tiles as they are encoded, RGB uint8 [side, side, 3]: whether they repeat the pixels of smaller ones."""
    squares = [_squares(tile) for tile in tiles]
    if not squares:
        return
    along = np.sum(squares, axis=0)  # [2 directions, differences]
    for repeat in _REPEATS:
        by_place = np.stack([along[:, place::repeat].mean(axis=1) for place in range(repeat)])
        between = by_place.max(axis=0)
        copies = (by_place.sum(axis=0) - between) / (repeat - 1)
        if (between >= _LEAST_SQUARE * len(squares)).all() and (copies <= _LIKE_COPIES * between).all():
            yield SlideWarning(
                "detail_doubted",
                f"Pixels come {repeat} × {repeat} times over: the slide is a smaller picture enlarged, and shows less "
                "than its µm/px say. Send the scanner's original file.",
            )
            return


def _contrast(rgb: NDArray[np.uint8], tissue: Mask) -> float | None:
    """By how many levels the middle of the tissue is darker, or more coloured, than all around it."""
    if not tissue.any() or tissue.all():
        return None
    luminance = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.int16)
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1].astype(np.int16)
    darker = np.median(luminance[~tissue]) - luminance[tissue]
    return float(np.median(np.maximum(darker, saturation[tissue] - np.median(saturation[~tissue]))))


def _squares(tile: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean squares of the differences at each place across and down, float64 [2, side - 1]."""
    luminance = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).astype(np.float64)
    across, down = (np.square(np.diff(luminance, axis=axis)) for axis in (1, 0))
    return np.stack([across.mean(axis=0), down.mean(axis=1)])
