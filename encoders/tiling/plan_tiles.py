"""Plans which tiles to read, and from which level. Pure: it sees sizes and a tissue mask, never a slide.

Tiles lie on a grid from the slide's upper left corner. Its stride is a whole number of level-0 pixels, the tile's
side rounded up: tiles never overlap, gaps stay below one pixel, and a coordinate divided by the stride is a grid
position exactly, which is what LongNet's position table needs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import NoTissue, ResolutionTooLow, SlideTooLarge
from encoders.tiling.resolution import effective_mpp
from encoders.tiling.slide_readers.slide_reader import Level
from encoders.types import SlideFacts, TilePlan
from model_store.contracts.tile_encoder import TilingSpec

# A level this close to the target is read as it is, without resampling.
_SAME_SCALE = 0.01
# A slide coarser than the target by more than this would be up-sampled: refused.
_COARSER_TOLERATED = 0.10
# Of a tile: whole ones are planned, but for the rounding of what was scanned to the mask's pixels.
_LEAST_SCANNED = 0.97


@dataclass(frozen=True)
class TileScale:
    """Read `read_px` pixels of `level` a side; they cover `tile_px_level0` level-0 pixels."""

    level: int
    read_px: int
    tile_px_level0: float


@dataclass(frozen=True)
class AreaMask:
    """Bool [h, w]; a pixel covers `px_level0` level-0 pixels a side, the first one from (0, 0)."""

    inside: NDArray[np.bool_]
    px_level0: float


def choose_scale(levels: Sequence[Level], mpp: float, tiling: TilingSpec) -> TileScale:
    """The level within 1 % of the target, else the next finer one and a reduction; raises ResolutionTooLow."""
    if mpp > tiling.target_mpp * (1 + _COARSER_TOLERATED):
        raise ResolutionTooLow(
            f"The slide has {mpp:.3g} µm/px; the model needs {tiling.target_mpp:g} or finer. Send all "
            "levels of it, scan it again, or give `mpp` if the file is wrong."
        )
    scales = [level.downsample * mpp / tiling.target_mpp for level in levels]
    exact = [index for index, level in enumerate(levels) if level.is_exact]
    same = [index for index in exact if abs(scales[index] - 1) <= _SAME_SCALE]
    finer = [index for index in exact if scales[index] < 1] or [0]
    level = min(same, key=lambda index: abs(scales[index] - 1)) if same else max(finer, key=lambda i: scales[i])
    read_px = tiling.tile_px if same else max(1, round(tiling.tile_px / scales[level]))
    return TileScale(level, read_px, read_px * levels[level].downsample)


def plan_tiles(
    facts: SlideFacts,
    scale: TileScale,
    mask: AreaMask,
    tiling: TilingSpec,
    *,
    mpp_override: float | None,
    max_tiles: int,
    scanned: AreaMask | None = None,
) -> TilePlan:
    """Whole tiles inside the slide with at least `min_tissue_fraction` of tissue, in raster order.

    With `scanned`, whole tiles inside of that. Raises NoTissue when there is none, SlideTooLarge beyond `max_tiles`.
    """
    coords = tiles_on(mask, facts, scale, tiling, scanned)
    if not len(coords) and not mask.inside.any():
        raise NoTissue("No tissue was found on the slide. Send one that shows tissue, or scan it darker.")
    if not len(coords):
        raise NoTissue(
            f"Tissue was found on the slide, but no whole tile of {scale.tile_px_level0:.0f} px has "
            f"{tiling.min_tissue_fraction:.0%} of it: it is small, at a border or pale. Scan the slide with more "
            "of it, or darker."
        )
    if len(coords) > max_tiles:
        raise SlideTooLarge(
            f"The slide has {len(coords)} tiles of tissue; at most {max_tiles} are encoded. Send a part of it, or ask "
            "the operator to raise EYEPIECE_MAX_SLIDE_TILES."
        )
    return TilePlan(
        width=facts.width,
        height=facts.height,
        mpp=effective_mpp(facts, mpp_override),
        mpp_source="property" if mpp_override is None else "override",
        objective_power=facts.objective_power,
        target_mpp=tiling.target_mpp,
        tile_px=tiling.tile_px,
        tile_px_level0=scale.tile_px_level0,
        level=scale.level,
        read_px=scale.read_px,
        coords=coords,
        reduction=tiling.reduction,
        warnings=facts.warnings,
    )


def tiles_on(
    mask: AreaMask, facts: SlideFacts, scale: TileScale, tiling: TilingSpec, scanned: AreaMask | None = None
) -> NDArray[np.int64]:
    """The corners of whole tiles with enough of the mask, int64 [N, 2]; raises NoTissue when no tile fits the slide."""
    stride = stride_px_level0(scale.tile_px_level0)
    lefts = _whole_tiles(facts.width, scale.tile_px_level0, stride)
    tops = _whole_tiles(facts.height, scale.tile_px_level0, stride)
    if not len(lefts) or not len(tops):
        raise NoTissue(
            f"The slide is smaller than one tile of {scale.tile_px_level0:.0f} px; there is nothing to encode. Send "
            "the whole slide, and `mpp` if its resolution is wrong."
        )
    fraction = _fraction_inside(mask, tops, lefts, scale.tile_px_level0)
    wanted = (fraction > 0) & (fraction >= tiling.min_tissue_fraction)
    if scanned is not None:
        wanted &= _fraction_inside(scanned, tops, lefts, scale.tile_px_level0) >= _LEAST_SCANNED
    rows, columns = np.nonzero(wanted)
    return np.stack([lefts[columns], tops[rows]], axis=1)


def area_share(mask: AreaMask, plan: TilePlan) -> NDArray[np.float64]:
    """The share of each planned tile's area under the mask, float64 [N]."""
    stride = stride_px_level0(plan.tile_px_level0)
    lefts = _whole_tiles(plan.width, plan.tile_px_level0, stride)
    tops = _whole_tiles(plan.height, plan.tile_px_level0, stride)
    columns, rows = (plan.coords // stride).T
    return np.asarray(_fraction_inside(mask, tops, lefts, plan.tile_px_level0)[rows, columns])


def plan_at_target(tiling: TilingSpec, coords: NDArray[np.int64]) -> TilePlan:
    """A plan without a slide: tiles at the target resolution on level 0 of one that just holds them."""
    side = tiling.tile_px
    return TilePlan(
        width=int(coords[:, 0].max()) + side,
        height=int(coords[:, 1].max()) + side,
        mpp=tiling.target_mpp,
        mpp_source="property",
        objective_power=None,
        target_mpp=tiling.target_mpp,
        tile_px=side,
        tile_px_level0=side,
        level=0,
        read_px=side,
        coords=coords,
        reduction=tiling.reduction,
    )


def stride_px_level0(tile_px_level0: float) -> int:
    """The grid's stride in level-0 pixels: the tile's side, rounded up (but not by a rounding error of floats)."""
    return math.ceil(tile_px_level0 - 1e-6)


def _whole_tiles(side: int, tile_px_level0: float, stride: int) -> NDArray[np.int64]:
    count = math.floor((side - tile_px_level0 + 1e-6) / stride) + 1
    return np.arange(max(0, count), dtype=np.int64) * stride


def _fraction_inside(
    mask: AreaMask, tops: NDArray[np.int64], lefts: NDArray[np.int64], tile_px_level0: float
) -> NDArray[np.float64]:
    """[rows, columns]: the exact share of each tile's area under the mask, mask pixels cut where a tile's edge cuts."""
    side = tile_px_level0 / mask.px_level0
    by_row = _sums_between(mask.inside.astype(np.float64), tops / mask.px_level0, side)
    by_tile = _sums_between(by_row.T, lefts / mask.px_level0, side).T
    return by_tile / side**2


def _sums_between(values: NDArray[np.float64], starts: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """[n, k] → [len(starts), k]: the integral over `start … start + side` along the first axis."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])

    def up_to(edges: NDArray[np.float64]) -> NDArray[np.float64]:
        edges = np.minimum(edges, len(values))
        whole = np.minimum(edges.astype(np.int64), len(values) - 1)
        part = (edges - whole)[:, np.newaxis]
        return np.asarray(total[whole] * (1 - part) + total[whole + 1] * part)

    return up_to(starts + side) - up_to(starts)
