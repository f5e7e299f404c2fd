"""From an open slide to its plan, however a model wants it cut."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from encoders.errors import NoTissue, SlideTooLarge
from encoders.hierarchical.plan_regions import MAX_OVERVIEW_PX, plan_regions
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.plan_slide import make_plan
from encoders.tiling.region_plan import region_plan
from encoders.tiling.resolution import effective_mpp
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.tissue.read_overview import read_overview
from encoders.types import SlideWarning, TilePlan
from model_store.contracts.region_grid import Cut, RegionGrid
from model_store.contracts.tile_encoder import TilingSpec

# The published level to look for tissue on: the coarsest one down to a sixty-fourth.
_OVERVIEW_DOWNSAMPLE = 64


def plan_cut(reader: SlideReader, cut: Cut, mpp_override: float | None, limits: ReaderLimits) -> TilePlan:
    """What is read and encoded; raises any SlideError but UnsupportedFormat."""
    match cut:
        case TilingSpec():
            return make_plan(reader, cut, mpp_override, limits)
        case RegionGrid():
            return _plan_grid(reader, cut, mpp_override, limits)
        case _:
            assert_never(cut)


def _plan_grid(reader: SlideReader, grid: RegionGrid, mpp_override: float | None, limits: ReaderLimits) -> TilePlan:
    """Regions as published: neither µm/px nor pen nor what was not scanned matters to where they lie."""
    facts, mpp = reader.facts, effective_mpp(reader.facts, mpp_override)
    step = reader.levels[min(grid.step_level, len(reader.levels) - 1)]
    coords = plan_regions(
        _overview(reader, limits),
        facts.width,
        facts.height,
        (step.width, step.height),
        grid.region_px,
        unit_px=grid.tissue_unit_px,
        edge=grid.edge,
    )
    if not len(coords):
        raise NoTissue(
            f"No region of {grid.region_px} × {grid.region_px} px with tissue lies inside the slide. Send one that "
            "shows more tissue, or scan it darker."
        )
    if len(coords) > limits.max_tiles:
        raise SlideTooLarge(
            f"The slide has {len(coords)} regions of tissue; at most {limits.max_tiles} are encoded. Send a part of "
            "it, or ask the operator to raise EYEPIECE_MAX_SLIDE_TILES."
        )
    warnings = (*facts.warnings, *_other_step(grid, len(reader.levels)))
    return region_plan(facts, grid, coords, mpp, mpp_override, warnings)


def _overview(reader: SlideReader, limits: ReaderLimits) -> NDArray[np.uint8]:
    """The published level as it is; where that is too large for the published code, the slide reduced by area."""
    within = [it for it in reader.levels if it.downsample <= _OVERVIEW_DOWNSAMPLE]
    level = max(within, key=lambda it: it.downsample)
    if level.width * level.height <= MAX_OVERVIEW_PX:
        index = reader.levels.index(level)
        return reader.read_covered(0, 0, index, level.width, level.height)[0]
    return read_overview(reader, _OVERVIEW_DOWNSAMPLE, _OVERVIEW_DOWNSAMPLE, limits).pixels


def _other_step(grid: RegionGrid, levels: int) -> tuple[SlideWarning, ...]:
    if grid.step_level < levels:
        return ()
    detail = (
        f"The slide has no level {grid.step_level}, by which the model lays its regions: they lie by level "
        f"{levels - 1}, closer together than on the slides that it was trained on."
    )
    return (SlideWarning("step_level_missing", detail),)
