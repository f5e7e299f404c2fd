"""Whether the coordinates of given features can be what the file says, and what the slide says that they are for. Pure.

A slide encoder takes any coordinates: tiles of another slide, at half their scale or on top of each other make an
embedding like any other. All lengths are level-0 pixels, and `coords` is int64 [N, 2], (x, y), no corner twice.
"""

import numpy as np
from numpy.typing import NDArray

from encoders.errors import UnusableFeatures
from encoders.precomputed.given_features import TileStatements
from encoders.types import SlideFacts
from model_store.contracts.tile_encoder import TilingSpec

# The field's magnifications: 40× is 0.25 µm/px, so mpp = 10 / magnification.
MAGNIFICATION_MPP = 10.0
# Tiles side by side are cut at whole pixels: a pixel or so of a side is rounding.
_ROUNDING_PX, _ROUNDING = 1.0, 0.02
# Tools cut each piece of tissue on a grid of its own, and such grids may meet.
_OVERLAPPING_TOLERATED = 0.25
# So many distances say how a grid was cut; fewer may be chance.
_FEW = 16
# Magnifications are nominal: 20× is 0.46 to 0.55 µm/px. Half the scale is far beyond it.
_SIDE_TOLERATED = 0.2
_MPP_TOLERATED = 0.1
_MAGNIFICATION_FACTOR = 1.5


def check_geometry(coords: NDArray[np.int64], said: TileStatements, tiling: TilingSpec) -> None:
    """Raises UnusableFeatures when the file contradicts itself: size, scale or spacing."""
    for name, one, other in (("width", said.width, said.level0_width), ("height", said.height, said.level0_height)):
        if one is not None and other is not None and one != other:
            raise UnusableFeatures(f"The file states two different values of `{name}`; correct its attributes.")
    _check_side(said)
    _check_inside(coords, *stated_size(said), "the slide's size that the file states")
    side = said.side_px_level0
    # Where the file does not say it: a slide that is not too coarse for the model has tiles of at least about this.
    _check_side_by_side(coords, side or tiling.tile_px * (1 - _MPP_TOLERATED), is_stated=side is not None)


def check_against_slide(coords: NDArray[np.int64], said: TileStatements, slide: SlideFacts, tiling: TilingSpec) -> None:
    """Raises UnusableFeatures when features cannot be this slide's; what neither of them says is not compared."""
    width, height = stated_size(said)
    if (width or slide.width, height or slide.height) != (slide.width, slide.height):
        raise UnusableFeatures(
            f"The features are of a slide of {width} × {height} px, this one has {slide.width} × {slide.height}; send "
            "the features of this slide."
        )
    _check_inside(coords, slide.width, slide.height, "this slide's size")
    if slide.mpp is None:
        return
    if said.mpp is not None and abs(said.mpp / slide.mpp - 1) > _MPP_TOLERATED:
        raise UnusableFeatures(
            f"The features are of a slide of {said.mpp:g} µm/px, this one has {slide.mpp:g}; send the features of this "
            "slide, or correct its resolution with `mpp` first."
        )
    if said.level0_magnification is not None:
        factor = MAGNIFICATION_MPP / said.level0_magnification / slide.mpp
        if not 1 / _MAGNIFICATION_FACTOR <= factor <= _MAGNIFICATION_FACTOR:
            raise UnusableFeatures(
                f"The features are of a slide scanned at {said.level0_magnification:g}×, this one has {slide.mpp:g} "
                "µm/px; send the features of this slide, or correct its resolution with `mpp` first."
            )
    expected = tiling.tile_px * tiling.target_mpp / slide.mpp
    side = said.side_px_level0 or _usual_spacing(coords)
    if side is not None and abs(side / expected - 1) > _SIDE_TOLERATED:
        raise UnusableFeatures(
            f"The features' tiles measure {side:g} px of level 0; at this slide's {slide.mpp:g} µm/px the served model "
            f"needs {expected:.0f}. Extract them again with `coords` in level-0 pixels, or send the slide itself."
        )


def tile_side_px_level0(
    coords: NDArray[np.int64], said: TileStatements, slide: SlideFacts, tiling: TilingSpec
) -> float | None:
    """A tile's side in level-0 pixels: as the file says, as the slide's scale wants it, or as the tiles lie; None when
    nothing tells."""
    if said.side_px_level0 is not None:
        return said.side_px_level0
    if slide.mpp is not None:
        return tiling.tile_px * tiling.target_mpp / slide.mpp
    return _usual_spacing(coords)


def stated_size(said: TileStatements) -> tuple[int | None, int | None]:
    """Width and height of the slide that the file says it is of."""
    return said.width or said.level0_width, said.height or said.level0_height


def _check_side(said: TileStatements) -> None:
    """The tile's side follows from the scale, where the file states both."""
    side = said.side_px_level0
    if side is None:
        return
    follows = []
    if said.tile_px and said.target_mpp and said.mpp:
        follows.append(said.tile_px * said.target_mpp / said.mpp)
    if said.patch_size and said.target_magnification and said.level0_magnification:
        follows.append(said.patch_size * said.level0_magnification / said.target_magnification)
    for expected in follows:
        if abs(side / expected - 1) > _SIDE_TOLERATED:
            raise UnusableFeatures(
                f"The file says that a tile measures {side:g} px of level 0, and its scale says {expected:g}; correct "
                "its attributes."
            )


def _check_inside(coords: NDArray[np.int64], width: int | None, height: int | None, whose: str) -> None:
    for axis, limit in enumerate((width, height)):
        beyond = 0 if limit is None else int((coords[:, axis] >= limit).sum())
        if beyond:
            raise UnusableFeatures(
                f"{beyond} of {len(coords)} rows of `coords` lie beyond {whose}, {width} × {height} px. Send the "
                "features of the right slide, with `coords` in level-0 pixels."
            )


def _check_side_by_side(coords: NDArray[np.int64], side: float, *, is_stated: bool) -> None:
    overlapping = _overlapping_share(coords, side * (1 - _ROUNDING) - _ROUNDING_PX)
    said = "are said to measure" if is_stated else "must measure at least"
    if overlapping > _OVERLAPPING_TOLERATED:
        raise UnusableFeatures(
            f"The tiles {said} {side:g} px of level 0 and lie closer together: they overlap, or `coords` are not "
            "level-0 pixels. Extract them side by side, with `coords` in level-0 pixels."
        )
    spacings = _spacings(coords)
    if is_stated and len(spacings) >= _FEW and spacings.min() > side * (1 + _ROUNDING) + _ROUNDING_PX:
        raise UnusableFeatures(
            f"The tiles are said to measure {side:g} px of level 0 and lie at least {spacings.min()} px apart. Extract "
            "them side by side, with `coords` and the tile's side in level-0 pixels."
        )


def _overlapping_share(coords: NDArray[np.int64], side: float) -> float:
    """The share of tiles of this side that cover a part of another one.

    Each lies in a cell of a grid of that side: two in one cell overlap, and beyond the eight cells around none does.
    """
    if side <= 0 or len(coords) < 2:
        return 0.0
    cells = np.floor(coords / side).astype(np.int64)
    columns = int(cells[:, 0].max()) + 3
    keys = (cells[:, 1] + 1) * columns + cells[:, 0] + 1
    order = np.argsort(keys, kind="stable")
    in_order, corners = keys[order], coords[order]
    same = in_order[1:] == in_order[:-1]
    overlaps = np.zeros(len(coords), dtype=bool)
    overlaps[1:] |= same
    overlaps[:-1] |= same
    for step in (-columns - 1, -columns, -columns + 1, -1, 1, columns - 1, columns, columns + 1):
        wanted = in_order + step
        at = np.minimum(np.searchsorted(in_order, wanted), len(in_order) - 1)
        near = (np.abs(corners[at] - corners) < side).all(axis=1)
        overlaps |= (in_order[at] == wanted) & near
    return float(overlaps.mean())


def _spacings(coords: NDArray[np.int64]) -> NDArray[np.int64]:
    """From each tile to the next one in its row, and in its column."""
    found = []
    for along, across in ((0, 1), (1, 0)):
        lines = coords[np.lexsort((coords[:, along], coords[:, across]))]
        steps = np.diff(lines, axis=0)
        found.append(steps[steps[:, across] == 0, along])
    return np.concatenate(found)


def _usual_spacing(coords: NDArray[np.int64]) -> float | None:
    """The commonest distance of neighbours; None when there are too few to tell."""
    spacings = _spacings(coords)
    if len(spacings) < _FEW:
        return None
    values, counts = np.unique(spacings, return_counts=True)
    return float(values[counts.argmax()])
