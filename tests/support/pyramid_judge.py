"""What became of a drawn pyramid: right, refused with a reason, wrong as a warning
says, or silently wrong. In this process, for speed."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from drawn_pyramids import Case, Drawn, draw, write
from numpy.typing import NDArray

from encoders.errors import NoTissue, SlideError
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.plan_slide import make_plan
from encoders.tiling.read_tiles import read_tile
from encoders.tiling.repeated_levels import repeated_levels
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.types import TilePlan
from model_store.contracts.tile_encoder import TilingSpec

TILING = TilingSpec(
    target_mpp=0.5, tile_px=64, min_tissue_fraction=0.1, order="raster", tissue_rule="otsu-guarded-v2", reduction="area"
)
LIMITS = ReaderLimits()
# Mean difference of a tile from what was drawn, in grey levels.
MOST_DIFFERENT = 2.0
# Of a tile's area: what the overview, 16 pixels a tile, cannot be wrong about.
_SURELY_TISSUE, _SURELY_GLASS = 0.5, 0.0
_PATCH_PX, _PATCHES = 48, 4
# A level's sides are whole pixels, so that a scale that is none is the mean of two: half a pixel off at the far side.
_FRACTION_PATCH_PX = 16

Outcome = Literal["right", "refused", "said", "wrong"]
# With this warning low levels may be some grey levels off, and show nothing of what level 0 lacks. Tiles are right.
_SAID = "levels_drawn_from_finer"


@dataclass(frozen=True)
class Judgement:
    """`word` says which refusal or what is wrong."""

    case: Case
    outcome: Outcome
    word: str = ""
    warnings: int = 0


def judge(case: Case, folder: Path) -> Judgement:
    """Draws and writes the slide, reads it as a worker does, and compares with the drawing."""
    drawn = draw(case)
    folder.mkdir()
    path = write(case, drawn, folder)
    for repeated in repeated_levels({it.name: it for it in path.parent.iterdir() if it.suffix == ".dcm"}):
        (path.parent / repeated).unlink()  # whoever arranges the files of a slide for a reader leaves them out
    try:
        reader = open_reader(path, LIMITS).reader
        plan = make_plan(reader, TILING, None, LIMITS)
        tiles = [(int(x), int(y), read_tile(reader, plan, int(x), int(y))) for x, y in plan.coords]
        if wrong := _wrong_tile(drawn, plan, tiles):
            return Judgement(case, "wrong", wrong, len(plan.warnings))
        wrong = _wrong_plan(drawn, plan) or _wrong_level(drawn, reader)
    except SlideError as error:
        is_true = isinstance(error, NoTissue) and _most_tissue(drawn) < TILING.min_tissue_fraction
        return Judgement(case, "right" if is_true else "refused", f"{error.code}: {error.detail}")
    said = any(warning.code == _SAID for warning in plan.warnings)
    outcome: Outcome = "right" if not wrong else "said" if said else "wrong"
    return Judgement(case, outcome, wrong, len(plan.warnings))


def _wrong_tile(drawn: Drawn, plan: TilePlan, tiles: list[tuple[int, int, NDArray[np.uint8]]]) -> str:
    white = np.where(drawn.scanned[..., np.newaxis], drawn.picture, 255).astype(np.uint8)
    as_scanned = replace(drawn, picture=white)
    for x, y, pixels in tiles:
        different = _difference(pixels, drawn.at(x, y, plan.tile_px_level0, plan.tile_px))
        if different > MOST_DIFFERENT:  # up to a tenth of a tile may not have been scanned, and is white then
            different = _difference(pixels, as_scanned.at(x, y, plan.tile_px_level0, plan.tile_px))
        if different > MOST_DIFFERENT:
            return f"the tile at ({x}, {y}) differs by {different:.1f}"
    if plan.mpp != drawn.case.mpp:
        return f"planned at {plan.mpp} µm/px"
    return ""


def _wrong_plan(drawn: Drawn, plan: TilePlan) -> str:
    """Every tile that is half tissue is there, none of glass alone; what was not scanned does not count."""
    planned = {(int(x), int(y)) for x, y in plan.coords}
    side = round(plan.tile_px_level0)
    for y in range(0, drawn.case.height - side + 1, side):
        for x in range(0, drawn.case.width - side + 1, side):
            here = np.s_[y : y + side, x : x + side]
            if not drawn.scanned[here].all():
                continue
            share = float(drawn.tissue[here].mean())
            if share >= _SURELY_TISSUE and (x, y) not in planned:
                return f"the tile at ({x}, {y}) with {share:.0%} tissue is not planned"
            around = drawn.tissue[max(0, y - side) : y + 2 * side, max(0, x - side) : x + 2 * side]
            if around.mean() <= _SURELY_GLASS and (x, y) in planned:
                return f"the tile at ({x}, {y}) of glass is planned"
    return ""


def _most_tissue(drawn: Drawn) -> float:
    """The largest share of tissue in a tile that was scanned wholly."""
    side = round(TILING.tile_px * TILING.target_mpp / drawn.case.mpp)
    corners = product(range(0, drawn.case.height - side + 1, side), range(0, drawn.case.width - side + 1, side))
    tiles = [np.s_[y : y + side, x : x + side] for y, x in corners]
    return max((float(drawn.tissue[it].mean()) for it in tiles if drawn.scanned[it].all()), default=0.0)


def _wrong_level(drawn: Drawn, reader: SlideReader) -> str:
    """A few patches of every level that is offered, against the drawing at the scale that is claimed."""
    rng = np.random.default_rng(drawn.case.seed)
    for index, level in enumerate(reader.levels):
        is_whole = level.downsample == int(level.downsample)
        patch_px = _PATCH_PX if is_whole else _FRACTION_PATCH_PX
        covered = level.downsample * patch_px
        columns, rows = (
            max(1, int((side - covered) / level.downsample)) for side in (drawn.case.width, drawn.case.height)
        )
        for _ in range(_PATCHES):
            x, y = (int(int(rng.integers(most)) * level.downsample) for most in (columns, rows))
            if not is_whole and (x or y):
                continue  # between pixels; the tiles that are read of such a level are looked at above
            here = np.s_[y : y + round(covered), x : x + round(covered)]
            if not drawn.scanned[here].all() or drawn.scanned[here].size < covered**2:
                continue
            pixels, _ = reader.read_covered(x, y, index, patch_px, patch_px)
            different = _difference(pixels, drawn.at(x, y, covered, patch_px))
            if different > MOST_DIFFERENT:
                return f"level {index} at 1/{level.downsample:g} differs by {different:.1f} at ({x}, {y})"
    return ""


def _difference(pixels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    return float(np.abs(pixels.astype(np.int16) - truth).mean())
