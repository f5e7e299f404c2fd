"""A plan of regions: squares of level 0 as it is, planned and read like tiles. Pure."""

import numpy as np
from numpy.typing import NDArray

from encoders.types import SlideFacts, SlideWarning, TilePlan
from model_store.contracts.region_grid import RegionGrid


def region_plan(
    facts: SlideFacts,
    grid: RegionGrid,
    coords: NDArray[np.int64],
    mpp: float,
    mpp_override: float | None,
    warnings: tuple[SlideWarning, ...],
) -> TilePlan:
    """Of corners [R, 2] in the grid's order."""
    return TilePlan(
        width=facts.width,
        height=facts.height,
        mpp=mpp,
        mpp_source="property" if mpp_override is None else "override",
        objective_power=facts.objective_power,
        target_mpp=mpp,
        tile_px=grid.region_px,
        tile_px_level0=float(grid.region_px),
        level=0,
        read_px=grid.region_px,
        coords=coords,
        warnings=warnings,
        unscanned="black",
    )


def regions_lie_in(coords: NDArray[np.int64], facts: SlideFacts, grid: RegionGrid) -> bool:
    """Whether every region begins in the slide, and ends there unless the grid leaves it white beyond the edge."""
    size = np.array([facts.width, facts.height])
    last = coords + (grid.region_px if grid.edge == "skipped" else 1)
    return bool(np.all(coords >= 0) and np.all(last <= size))
