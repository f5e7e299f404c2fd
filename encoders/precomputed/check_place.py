"""Whether given features lie where this slide has tissue, as the plan of its own tiles shows it. Pure.

Other tools find a little more or less tissue than we do, cut each piece of it on a grid of its own, or take every tile
of the slide. So features lie on tissue when they touch it, and only the inside of the tissue must be covered.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import UnusableFeatures
from encoders.tiling.plan_tiles import stride_px_level0
from encoders.types import SlideWarning, TilePlan

# Fewer tiles, on either side, say nothing of how they lie.
_FEW = 16
# Features that miss more than half of the tissue, and lie off it by more than half, are not this slide's.
_ELSEWHERE = 0.5
# The same turned or mirrored lies so well, and so much better than as it is.
_FITS, _FITS_BETTER_BY = 0.85, 0.2
_MUCH_LEFT_OUT = 0.7

Cells = NDArray[np.bool_]
Coords = NDArray[np.int64]


@dataclass(frozen=True)
class _Fit:
    """Shares from 0 to 1: of the features' tiles that touch tissue, and of the tissue's inside that they touch."""

    on_tissue: float
    covered: float

    @property
    def score(self) -> float:
        """The lesser of both."""
        return min(self.on_tissue, self.covered)


def check_place(coords: Coords, side_px_level0: float, plan: TilePlan) -> tuple[SlideWarning, ...]:
    """Doubts about features whose tiles have their corners at `coords`, int64 [N, 2], level-0 (x, y).

    `plan` is of the slide's own pixels. Raises UnusableFeatures when the features are turned, mirrored or of another
    slide.
    """
    warnings = list(_doubt_of_corners(coords, side_px_level0))
    if min(len(coords), len(plan.coords)) < _FEW:
        return tuple(warnings)
    tissue = _planned(plan)
    found = _fit(coords, side_px_level0, plan, tissue)
    turned = {name: _fit(it, side_px_level0, plan, tissue).score for name, it in _turned(coords, side_px_level0, plan)}
    best = max(turned, key=lambda name: turned[name], default="")
    if turned.get(best, 0.0) >= max(_FITS, found.score + _FITS_BETTER_BY):
        raise UnusableFeatures(
            f"The features lie on this slide's tissue only when `coords` are {best}. Send them as level-0 (x, y) from "
            "the slide's upper left corner, x to the right, y down."
        )
    if max(found.on_tissue, found.covered) < _ELSEWHERE:
        raise UnusableFeatures(
            f"The features are not of this slide: {1 - found.on_tissue:.0%} of their tiles lie beside its tissue, and "
            f"{1 - found.covered:.0%} of its tissue has none. Send the features of this slide, or the slide alone."
        )
    if found.covered < _MUCH_LEFT_OUT:
        warnings.append(_doubt(f"The features leave out {1 - found.covered:.0%} of the tissue that the slide shows."))
    if found.on_tissue < _ELSEWHERE:
        warnings.append(
            _doubt(f"{1 - found.on_tissue:.0%} of the features' tiles lie where the slide shows no tissue.")
        )
    return tuple(warnings)


def not_compared(why: str) -> SlideWarning:
    """For features of a slide whose own tissue is not known; `why` is a sentence."""
    return _doubt(f"Whether the features lie on the slide's tissue could not be compared: {why}"[:300])


def _doubt_of_corners(coords: Coords, side: float) -> Iterator[SlideWarning]:
    """Grids begin at the slide's corner, or wherever a piece of tissue does: half a tile off is a centre."""
    stride = stride_px_level0(side)
    halves = {stride // 2, (stride + 1) // 2}
    if len(coords) >= _FEW and all(len(set(np.unique(axis % stride).tolist()) - halves) == 0 for axis in coords.T):
        yield _doubt(
            "All `coords` lie half a tile from a grid that begins at the slide's corner, as the centres of tiles do; "
            "they are taken for upper left corners."
        )


def _doubt(sentence: str) -> SlideWarning:
    return SlideWarning("features_doubted", sentence)


def _planned(plan: TilePlan) -> Cells:
    """Bool [rows, columns]: the planned tiles on their grid, with an empty rim on all sides."""
    stride = stride_px_level0(plan.tile_px_level0)
    cells = np.zeros((plan.height // stride + 3, plan.width // stride + 3), dtype=np.bool_)
    columns, rows = (plan.coords // stride).T
    cells[rows + 1, columns + 1] = True
    return cells


def _fit(coords: Coords, side: float, plan: TilePlan, tissue: Cells) -> _Fit:
    stride = stride_px_level0(plan.tile_px_level0)
    # What touches a cell by less than a tenth of it lies beside it.
    margin = side / 10
    first = np.floor((coords + margin) / stride).astype(np.int64) + 1
    last = np.floor((coords + side - margin) / stride).astype(np.int64) + 1
    limits = np.array(tissue.shape[::-1]) - 1
    first, last = np.clip(first, 0, limits), np.clip(last, 0, limits)
    touched = np.zeros_like(tissue)
    on_tissue = np.zeros(len(coords), dtype=np.bool_)
    for columns in (first[:, 0], last[:, 0]):
        for rows in (first[:, 1], last[:, 1]):
            touched[rows, columns] = True
            on_tissue |= tissue[rows, columns]
    inside = tissue[1:-1, 1:-1] & tissue[:-2, 1:-1] & tissue[2:, 1:-1] & tissue[1:-1, :-2] & tissue[1:-1, 2:]
    wanted = inside if inside.sum() >= _FEW else tissue[1:-1, 1:-1]
    return _Fit(float(on_tissue.mean()), float(touched[1:-1, 1:-1][wanted].mean()))


def _turned(coords: Coords, side: float, plan: TilePlan) -> Iterator[tuple[str, Coords]]:
    """The coordinates as a tool with other axes would have written them, where the slide has such places."""
    x, y = coords.T
    most_x, most_y = (int(it - side) for it in (plan.width, plan.height))
    ways = {
        "swapped": (y, x),
        "mirrored in x": (most_x - x, y),
        "mirrored in y": (x, most_y - y),
        "turned by 180°": (most_x - x, most_y - y),
        "swapped and mirrored in x": (most_x - y, x),
        "swapped and mirrored in y": (y, most_y - x),
        "swapped and turned by 180°": (most_x - y, most_y - x),
    }
    for name, way in ways.items():
        turned = np.stack(way, axis=1)
        if turned.min() >= 0 and (turned < (plan.width, plan.height)).all():
            yield name, turned
