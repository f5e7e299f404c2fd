"""From an open slide to its plan: resolution, tissue, tiles, the three questions in the order of what they cost."""

from dataclasses import replace

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.plan_tiles import TissueMask, choose_scale, plan_tiles
from encoders.tiling.resolution import effective_mpp
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.tissue.find_tissue import find_tissue
from encoders.tiling.tissue.read_overview import Overview, read_overview
from encoders.types import SlideWarning, TilePlan
from model_store.manifest import TilingSpec

# Pixels of the overview along a tile's side: enough to see whether a tenth of it is tissue (8-16 µm/px).
_OVERVIEW_PX_PER_TILE = 16
# The cheapest level that still shows that: a level at downsample 64 costs a hundredth of one at 4.
_LEAST_PX_PER_TILE = 4


def make_plan(reader: SlideReader, tiling: TilingSpec, mpp_override: float | None, limits: ReaderLimits) -> TilePlan:
    """The tiles that are read and encoded; raises any SlideError but UnsupportedFormat."""
    warnings: list[SlideWarning] = []  # beside those in the facts: whoever doubts something on the way adds it here
    scale = choose_scale(reader.levels, effective_mpp(reader.facts, mpp_override), tiling)
    overview = plan_overview(reader, scale.tile_px_level0, limits)
    mask = TissueMask(find_tissue(overview.pixels), overview.px_level0)
    plan = plan_tiles(reader.facts, scale, mask, tiling, mpp_override=mpp_override, max_tiles=limits.max_tiles)
    return replace(plan, warnings=(*plan.warnings, *warnings))


def plan_overview(reader: SlideReader, tile_px_level0: float, limits: ReaderLimits) -> Overview:
    """The picture in which tissue is looked for when tiles are so large."""
    return read_overview(reader, tile_px_level0 / _OVERVIEW_PX_PER_TILE, tile_px_level0 / _LEAST_PX_PER_TILE, limits)
