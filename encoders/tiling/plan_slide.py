"""From an open slide to its plan: resolution, tissue, tiles, the three questions in the order of what they cost."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.errors import NoTissue, UnreadableSlide
from encoders.tiling.doubt_tiles import doubt_detail, doubt_overview
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.plan_tiles import AreaMask, TileScale, choose_scale, plan_tiles, tiles_on
from encoders.tiling.read_tiles import read_tile
from encoders.tiling.resolution import effective_mpp
from encoders.tiling.slide_readers.slide_reader import SlideReader, not_scanned
from encoders.tiling.tissue.coverage import Coverage, find_coverage
from encoders.tiling.tissue.false_colors import check_colors
from encoders.tiling.tissue.find_tissue import find_tissue
from encoders.tiling.tissue.read_overview import Overview, read_overview
from encoders.tiling.tissue.scan_frame import Mask
from encoders.tiling.tissue.texture import find_flat
from encoders.types import SlideFacts, SlideWarning, TilePlan
from model_store.contracts.tile_encoder import TilingSpec

# Pixels of the overview along a tile's side: enough to see whether a tenth of it is tissue (8-16 µm/px).
_OVERVIEW_PX_PER_TILE = 16
# The cheapest level that still shows that: a level at downsample 64 costs a hundredth of one at 4.
_LEAST_PX_PER_TILE = 4
# Where a file does not tell which of its tiles are there, so many planned ones are read before any is encoded.
_TRIED_TILES = 12
# Elsewhere so many are read to see what they are like; a damaged one is for the encode to find.
_LOOKED_AT = 4
# What is darker still on a slide without tissue is dust.
_DARKEST_PERCENT = 0.5


@dataclass(frozen=True)
class FoundTissue:
    """Where tissue lies: `shown` by the overview, bool [h, w], and `inside` of what was scanned."""

    overview: Overview
    coverage: Coverage
    shown: Mask

    @property
    def inside(self) -> Mask:
        """Tissue of which there are pixels."""
        return self.shown if self.coverage.scanned is None else self.shown & self.coverage.scanned

    @property
    def mask(self) -> AreaMask:
        """The same for planning."""
        return AreaMask(self.inside, self.overview.px_level0)


def make_plan(reader: SlideReader, tiling: TilingSpec, mpp_override: float | None, limits: ReaderLimits) -> TilePlan:
    """The tiles that are read and encoded; raises any SlideError but UnsupportedFormat."""
    warnings: list[SlideWarning] = []  # beside those in the facts: whoever doubts something on the way adds it here
    scale = choose_scale(reader.levels, effective_mpp(reader.facts, mpp_override), tiling)
    found = look_for_tissue(reader, scale.tile_px_level0, scale.level, limits)
    warnings.extend(check_colors(found.overview.pixels, found.coverage.scanned))
    _check_nothing_is_lost(found, reader.facts, scale, tiling)
    override, most, scanned = mpp_override, limits.max_tiles, found.coverage.tiles
    if not found.inside.any():
        tiles_on(found.mask, reader.facts, scale, tiling)  # a slide that is smaller than a tile says that instead
        raise NoTissue(_why_none(found))
    plan = plan_tiles(reader.facts, scale, found.mask, tiling, mpp_override=override, max_tiles=most, scanned=scanned)
    warnings.extend(doubt_overview(found.overview, found.inside, plan, tiling))
    warnings.extend(doubt_detail(_tried(reader, plan)))
    return replace(plan, warnings=(*plan.warnings, *warnings))


def look_for_tissue(reader: SlideReader, tile_px_level0: float, level: int, limits: ReaderLimits) -> FoundTissue:
    """Tissue for tiles so large, read from `level`; raises UnreadableSlide or SlideTooLarge."""
    finest, coarsest = tile_px_level0 / _OVERVIEW_PX_PER_TILE, tile_px_level0 / _LEAST_PX_PER_TILE
    downsamples = [it.downsample for it in reader.levels if it.downsample <= max(1.0, coarsest)]
    for downsample in reversed(downsamples):  # a low level may lack what level 0 has
        overview = read_overview(reader, finest, downsample, limits)
        coverage = find_coverage(reader, level, overview)
        if coverage.is_seen or downsample == downsamples[0]:
            break
    return FoundTissue(overview, coverage, find_tissue(overview.pixels, coverage.scanned))


def _check_nothing_is_lost(found: FoundTissue, facts: SlideFacts, scale: TileScale, tiling: TilingSpec) -> None:
    """Raises UnreadableSlide naming where the overview shows tissue and the level that is read has no pixels."""
    if found.coverage.scanned is None:
        return
    lost = found.shown & ~found.coverage.scanned & ~_without_texture(found.overview.pixels)
    corners = tiles_on(AreaMask(lost, found.overview.px_level0), facts, scale, tiling)
    if len(corners):
        left, top = corners.min(axis=0).tolist()
        right, bottom = (corners.max(axis=0) + scale.tile_px_level0).astype(int).tolist()
        raise not_scanned(facts, left, top, right - left, bottom - top)


def _without_texture(rgb: NDArray[np.uint8]) -> Mask:
    """A colour chosen by software for what was not scanned, with its rim."""
    return np.asarray(cv2.dilate(find_flat(rgb).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0, dtype=np.bool_)


def _tried(reader: SlideReader, plan: TilePlan) -> list[NDArray[np.uint8]]:
    """Some of the planned tiles; raises UnreadableSlide where the file does not tell which of its tiles are there."""
    tells = reader.empty_tiles(plan.level) is not None
    tiles = []
    for index in np.unique(np.linspace(0, len(plan.coords) - 1, _LOOKED_AT if tells else _TRIED_TILES).astype(int)):
        try:
            tiles.append(read_tile(reader, plan, *plan.coords[index].tolist()))
        except UnreadableSlide:
            if not tells:
                raise
    return tiles


def _why_none(found: FoundTissue) -> str:
    """What was seen instead of tissue, and what to do."""
    rgb, scanned = found.overview.pixels, found.coverage.scanned
    luminance = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    seen = luminance if scanned is None else luminance[scanned]
    if not seen.size:
        return (
            "No tissue was found: the file has no pixels, or its alpha channel hides them all. Send a complete copy "
            "without an alpha channel."
        )
    darker_by = float(np.median(seen)) - float(np.percentile(seen, _DARKEST_PERCENT))
    return (
        f"No tissue was found: hardly anything on the slide is more than {darker_by:.0f} of 255 grey levels darker "
        "than its glass. If its thumbnail shows tissue, stain or scan it darker, or send its features."
    )
