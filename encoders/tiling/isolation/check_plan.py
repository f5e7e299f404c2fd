"""Turns what a reader says it planned into a TilePlan, or into nothing when it cannot be true."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from encoders.tiling.isolation.reader_protocol import Planned, warnings_from
from encoders.tiling.region_plan import region_plan, regions_lie_in
from encoders.types import SlideFacts, TilePlan
from model_store.contracts.region_grid import Cut, RegionGrid
from model_store.contracts.tile_encoder import TilingSpec


def plan_from_reply(
    reply: Planned, body: bytes, facts: SlideFacts, cut: Cut, mpp_override: float | None
) -> TilePlan | None:
    """The plan, with everything the caller already knows taken from the caller; None when the reply contradicts it."""
    mpp = facts.mpp if mpp_override is None else mpp_override
    if mpp is None or len(body) != reply.tile_count * 16:
        return None
    coords = np.frombuffer(body, dtype="<i8").reshape(-1, 2).astype(np.int64)
    match cut:
        case TilingSpec():
            return _tiles(reply, coords, facts, cut, mpp, mpp_override)
        case RegionGrid():
            return _regions(reply, coords, facts, cut, mpp, mpp_override)
        case _:
            assert_never(cut)


def _regions(
    reply: Planned,
    coords: NDArray[np.int64],
    facts: SlideFacts,
    grid: RegionGrid,
    mpp: float,
    mpp_override: float | None,
) -> TilePlan | None:
    """In the child's order, which is none that could be checked; regions of two outlines may overlap."""
    is_whole = (reply.level, reply.read_px, reply.tile_px_level0) == (0, grid.region_px, grid.region_px)
    if not is_whole or not regions_lie_in(coords, facts, grid):
        return None
    return region_plan(facts, grid, coords, mpp, mpp_override, warnings_from(reply.warnings))


def _tiles(
    reply: Planned,
    coords: NDArray[np.int64],
    facts: SlideFacts,
    tiling: TilingSpec,
    mpp: float,
    mpp_override: float | None,
) -> TilePlan | None:
    if not (_is_raster(coords) and _is_inside(coords, facts, reply.tile_px_level0)):
        return None
    # Rounding to whole pixels and the 10 % of tolerated coarseness stay far inside this.
    if not 0.5 < reply.tile_px_level0 * mpp / (tiling.tile_px * tiling.target_mpp) < 2:
        return None
    return TilePlan(
        width=facts.width,
        height=facts.height,
        mpp=mpp,
        mpp_source="property" if mpp_override is None else "override",
        objective_power=facts.objective_power,
        target_mpp=tiling.target_mpp,
        tile_px=tiling.tile_px,
        tile_px_level0=reply.tile_px_level0,
        level=reply.level,
        read_px=reply.read_px,
        coords=coords,
        reduction=tiling.reduction,
        warnings=warnings_from(reply.warnings),
    )


def _is_raster(coords: NDArray[np.int64]) -> bool:
    down, right = np.diff(coords[:, 1]), np.diff(coords[:, 0])
    return bool(np.all((down > 0) | ((down == 0) & (right > 0))))


def _is_inside(coords: NDArray[np.int64], facts: SlideFacts, tile_px_level0: float) -> bool:
    slide = np.array([facts.width, facts.height])
    return bool(np.all(coords >= 0) and np.all(coords + tile_px_level0 <= slide + 0.5))
