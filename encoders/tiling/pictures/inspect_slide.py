"""Looks at the pixels before anything is encoded: tissue, pen, and a picture of the plan."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import MissingMpp, NoTissue, ResolutionTooLow, SlideTooLarge
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.pictures.draw_plan import PlanPicture, draw_plan, largest_picture
from encoders.tiling.pictures.thumbnail import as_png, read_thumbnail
from encoders.tiling.plan_cut import plan_cut
from encoders.tiling.plan_slide import FoundTissue, look_for_tissue
from encoders.tiling.plan_tiles import TileScale, choose_scale, plan_tiles
from encoders.tiling.resolution import effective_mpp
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.tissue.pen_marks import find_pen, pen_share
from model_store.contracts.region_grid import Cut, RegionGrid

# Where nobody knows how large a tile would be, tissue is looked for as if so many lay along the longer side.
_TILES_ALONG_UNKNOWN = 64


@dataclass(frozen=True)
class InspectOptions:
    """How the slide would be cut, and the longer side of the drawing; without one nothing is drawn."""

    cut: Cut
    mpp_override: float | None
    overlay_px: int | None


@dataclass(frozen=True)
class SlideLook:
    """Shares from 0 to 1: of the slide's area that is tissue, and of tissue that lies under pen.

    `overlay` is a PNG, empty when none was wished for.
    """

    tissue_share: float
    pen_share: float
    overlay: bytes


def inspect_slide(reader: SlideReader, options: InspectOptions, limits: ReaderLimits) -> SlideLook:
    """Looks and draws, also where the slide cannot be planned; raises UnreadableSlide or SlideTooLarge."""
    scale = _scale_if_known(reader, options)
    unknown = max(reader.facts.width, reader.facts.height) / _TILES_ALONG_UNKNOWN
    found = look_for_tissue(reader, scale.tile_px_level0 if scale else unknown, scale.level if scale else 0, limits)
    tissue, pen = found.inside, find_pen(found.overview.pixels)
    overlay = b""
    if options.overlay_px is not None:
        coords, side = _planned(reader, options, scale, found, limits)
        mpp = reader.facts.mpp if options.mpp_override is None else options.mpp_override
        picture = PlanPicture(tissue, pen, found.overview.px_level0, coords, side, mpp)
        overlay = as_png(draw_plan(read_thumbnail(reader, largest_picture(options.overlay_px), limits), picture))
    return SlideLook(float(tissue.mean()), pen_share(pen, tissue), overlay)


def _scale_if_known(reader: SlideReader, options: InspectOptions) -> TileScale | None:
    """Of tiles; regions have another look at the slide, and tissue is looked for as if nobody knew their size."""
    if isinstance(options.cut, RegionGrid):
        return None
    try:
        return choose_scale(reader.levels, effective_mpp(reader.facts, options.mpp_override), options.cut)
    except (MissingMpp, ResolutionTooLow):
        return None


def _planned(
    reader: SlideReader, options: InspectOptions, scale: TileScale | None, found: FoundTissue, limits: ReaderLimits
) -> tuple[NDArray[np.int64], float]:
    """Corners of the planned tiles or regions, and their side; no corners where planning ends in an error, which the
    plan itself will say."""
    none = np.zeros((0, 2), dtype=np.int64)
    override, most, scanned = options.mpp_override, limits.max_tiles, found.coverage.tiles
    try:
        if isinstance(options.cut, RegionGrid):
            return plan_cut(reader, options.cut, override, limits).coords, options.cut.region_px
        if scale is None:
            return none, max(reader.facts.width, reader.facts.height) / _TILES_ALONG_UNKNOWN
        return plan_tiles(
            reader.facts, scale, found.mask, options.cut, mpp_override=override, max_tiles=most, scanned=scanned
        ).coords, scale.tile_px_level0
    except (MissingMpp, NoTissue, SlideTooLarge):
        return none, options.cut.tile_px if scale is None else scale.tile_px_level0
