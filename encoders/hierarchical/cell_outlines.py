"""Outlines of cells as valid polygons: closed, without a side that touches another one, and with an area.

An outline goes through the middles of pixels. Where a cell is one pixel wide it goes there and back along the same
pixels, which no program takes for a polygon: such tails are cut off, and a cell that is nothing else becomes the box
of its pixels. Either is said of the polygon.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Sides of an outline whose pixels are no steps to a neighbour are compared each with each.
_MOST_COMPARED: Final = 1_024


@dataclass(frozen=True)
class CellPolygon:
    """A ring [n, 2] of level-0 (x, y), n ≥ 4, its first corner again at its end, of positive area where y points up.

    Pixel i covers i … i + 1, so that corners in the middle of pixels end in .5. `mended`: not the outline that the cell
    had, see the module.
    """

    ring: NDArray[np.float64]
    mended: bool


def cell_polygons(outline: NDArray[np.int32], outline_start: NDArray[np.int64]) -> list[CellPolygon]:
    """Outlines as in the file of levels (`outline_start` [N + 1], from 0) → N polygons."""
    if len(outline_start) < 2:
        return []
    points, start = outline.astype(np.int64), outline_start.tolist()
    rings = _closed_rings(points, outline_start)
    return [
        CellPolygon(ring, False) if is_good else _mended(points[start[cell] : start[cell + 1]])
        for cell, (ring, is_good) in enumerate(zip(rings, _are_simple(points, outline_start).tolist(), strict=True))
    ]


def _closed_rings(points: NDArray[np.int64], start: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """What `_ring` makes of each outline, in one go: most cells need no more."""
    size = np.diff(start)
    first = np.repeat(start[:-1], size)
    local = points - points[first]
    following = _following(start)
    double_area = np.add.reduceat(_cross(local, local[following]), start[:-1])
    place = np.arange(len(points) + len(size)) - np.repeat(start[:-1] + np.arange(len(size)), size + 1)
    length, begin, turn = (np.repeat(of_cell, size + 1) for of_cell in (size, start[:-1], double_area < 0))
    place = place % length
    source = begin + np.where(turn, (length - place) % length, place)
    return np.split(points[source] + 0.5, (start[1:] + np.arange(1, len(start)))[:-1])


def _following(start: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each corner the index of the next one of its outline."""
    following = np.arange(1, int(start[-1]) + 1)
    following[start[1:] - 1] = start[:-1]
    return following


def _are_simple(points: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N]: whether an outline goes from neighbour to neighbour and never to the same place twice."""
    size = np.diff(start)
    cell = np.repeat(np.arange(len(size)), size)
    side = points[_following(start)] - points
    steps = np.abs(side).max(axis=1)
    is_straight = (side == 0).any(axis=1) | (np.abs(side[:, 0]) == np.abs(side[:, 1]))
    good: NDArray[np.bool_] = np.logical_and.reduceat(is_straight & (steps > 0), start[:-1])
    # All pixels on the way and the middles between them, in half pixels: two diagonal steps may cross in a middle.
    of_side = np.repeat(np.arange(len(points)), steps)
    along = np.arange(len(of_side)) - np.repeat(np.cumsum(steps) - steps, steps)
    unit = np.sign(side)[of_side]
    corner = 2 * (points[of_side] + unit * along[:, None])
    places = np.concatenate([corner, corner + unit]) - 2 * points.min(axis=0)
    span = int(places.max(initial=0)) + 1
    key = (np.tile(cell[of_side], 2) * span + places[:, 0]) * span + places[:, 1]
    key.sort()
    good[np.unique(key[1:][key[1:] == key[:-1]] // (span * span))] = False
    return good


def _mended(cell: NDArray[np.int64]) -> CellPolygon:
    """An outline that touches itself, or that nothing is known of yet."""
    cell = cell[(cell != np.roll(cell, -1, axis=0)).any(axis=1)] if len(np.unique(cell, axis=0)) > 1 else cell[:1]
    side = np.roll(cell, -1, axis=0) - cell
    steps = np.abs(side).max(axis=1)
    is_straight = bool(((side == 0).any(axis=1) | (np.abs(side[:, 0]) == np.abs(side[:, 1]))).all())
    if not is_straight:
        return CellPolygon(_ring(cell + 0.5), False) if _is_simple(cell) else _box(cell)
    on_the_way = np.concatenate(
        [corner + np.sign(to) * np.arange(count)[:, None] for corner, to, count in zip(cell, side, steps, strict=True)]
    )
    loop = _largest_loop(on_the_way)
    return CellPolygon(_ring(loop + 0.5), True) if len(loop) and _is_simple(loop) else _box(cell)


def _largest_loop(path: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest part of a closed path of neighbours that never comes to a pixel twice, its corners; may be empty."""
    best: list[tuple[int, int]] = []
    best_area = 0.0
    open_path: list[tuple[int, int]] = []
    place_of: dict[tuple[int, int], int] = {}
    for point in [*map(tuple, path.tolist()), None]:
        if point is not None and point not in place_of:
            place_of[point] = len(open_path)
            open_path.append(point)
            continue
        begin = 0 if point is None else place_of[point]
        loop = open_path[begin:]
        area = abs(_double_area(np.array(loop, np.int64).reshape(-1, 2)))
        if area > best_area:
            best, best_area = loop, area
        for passed in open_path[begin + 1 :]:
            del place_of[passed]
        del open_path[begin + 1 :]
    return _corners(np.array(best, np.int64).reshape(-1, 2))


def _corners(ring: NDArray[np.int64]) -> NDArray[np.int64]:
    """Without points on straight sides."""
    if not len(ring):
        return ring
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turning: NDArray[np.bool_] = (before != after).any(axis=1)
    return ring[turning]


def _is_simple(ring: NDArray[np.int64]) -> bool:
    """Whether no two sides of a ring [n, 2] touch but neighbours in their corner; by comparing each with each."""
    n = len(ring)
    if not 3 <= n <= _MOST_COMPARED or not _double_area(ring):
        return False
    begin, end = ring, np.roll(ring, -1, axis=0)
    side = end - begin
    if not side.any(axis=1).all():
        return False
    # A neighbour may not lead back.
    ahead = np.roll(side, -1, axis=0)
    leads_back = (_cross(side, ahead) == 0) & ((side * ahead).sum(axis=1) < 0)
    if leads_back.any():
        return False
    i, j = np.triu_indices(n, 2)
    apart = ~((i == 0) & (j == n - 1))
    i, j = i[apart], j[apart]
    a, b, c, d = begin[i], end[i], begin[j], end[j]
    sides = [np.sign(_cross(b - a, p - a)) for p in (c, d)] + [np.sign(_cross(d - c, p - c)) for p in (a, b)]
    boxes_meet = ((np.minimum(a, b) <= np.maximum(c, d)) & (np.minimum(c, d) <= np.maximum(a, b))).all(axis=1)
    return not (boxes_meet & (sides[0] * sides[1] <= 0) & (sides[2] * sides[3] <= 0)).any()


def _cross(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of vectors [n, 2]."""
    product: NDArray[np.int64] = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    return product


def _box(cell: NDArray[np.int64]) -> CellPolygon:
    (left, top), (right, bottom) = cell.min(axis=0), cell.max(axis=0) + 1
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return CellPolygon(_ring(np.array(corners, np.float64)), True)


def _ring(corners: NDArray[np.floating]) -> NDArray[np.float64]:
    turned = np.asarray(corners if _double_area(corners) > 0 else corners[::-1], np.float64)
    return np.concatenate([turned, turned[:1]])


def _double_area(corners: NDArray[np.integer] | NDArray[np.floating]) -> float:
    """Signed; relative to the first corner, so that it does not round far out on a slide."""
    if len(corners) < 3:
        return 0
    local = corners - corners[0]
    following = np.roll(local, -1, axis=0)
    return float((local[:, 0] * following[:, 1] - local[:, 1] * following[:, 0]).sum())
