"""Held against GEOS (shapely), whose rules are those of QuPath's JTS."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from shapely.geometry import Polygon

from encoders.hierarchical.cell_outlines import CellPolygon, cell_polygons


def polygons_of(*cells: list[list[int]] | NDArray[np.int32]) -> list[CellPolygon]:
    arrays = [np.asarray(cell, np.int32).reshape(-1, 2) for cell in cells]
    start = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
    return cell_polygons(np.concatenate(arrays) if arrays else np.zeros((0, 2), np.int32), start)


def outlines_of(mask: NDArray[np.uint8]) -> list[NDArray[np.int32]]:
    found = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    return [outline.reshape(-1, 2).astype(np.int32) for outline in found]


def test_there_may_be_none() -> None:
    assert polygons_of() == []


def test_a_plain_outline_stays_as_it_is_in_the_middles_of_pixels() -> None:
    square, turned = polygons_of([[10, 20], [14, 20], [14, 23], [10, 23]], [[10, 23], [14, 23], [14, 20], [10, 20]])

    assert square.ring.tolist() == [[10.5, 20.5], [14.5, 20.5], [14.5, 23.5], [10.5, 23.5], [10.5, 20.5]]
    assert turned.ring.tolist() == [[10.5, 23.5], [10.5, 20.5], [14.5, 20.5], [14.5, 23.5], [10.5, 23.5]]
    assert (square.mended, turned.mended) == (False, False)


@pytest.mark.parametrize(
    ("outline", "ring"),
    [
        ([[5, 5]], [[5, 5], [6, 5], [6, 6], [5, 6], [5, 5]]),
        ([[5, 5], [9, 5]], [[5, 5], [10, 5], [10, 6], [5, 6], [5, 5]]),
        ([[5, 5], [7, 7]], [[5, 5], [8, 5], [8, 8], [5, 8], [5, 5]]),
        ([[5, 5], [5, 5], [5, 5]], [[5, 5], [6, 5], [6, 6], [5, 6], [5, 5]]),
        # A square with a tail, there and back.
        ([[0, 0], [4, 0], [4, 4], [9, 4], [4, 4], [0, 4]],
         [[0.5, 0.5], [4.5, 0.5], [4.5, 4.5], [0.5, 4.5], [0.5, 0.5]]),
        # Two squares that meet in a corner: the larger one.
        ([[0, 0], [2, 0], [2, 2], [6, 2], [6, 6], [2, 6], [2, 2], [0, 2]],
         [[2.5, 2.5], [6.5, 2.5], [6.5, 6.5], [2.5, 6.5], [2.5, 2.5]]),
        # A bow tie whose sides cross in no pixel's middle.
        ([[0, 0], [3, 3], [3, 0], [0, 3]], [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]),
    ],
)  # fmt: skip
def test_an_outline_that_touches_itself_is_mended(outline: list[list[int]], ring: list[list[float]]) -> None:
    (polygon,) = polygons_of(outline)

    assert (polygon.mended, Polygon(polygon.ring).equals(Polygon(ring))) == (True, True)
    assert len(polygon.ring) == len(ring)


def test_whatever_is_outlined_is_a_valid_polygon_and_mended_only_if_it_was_none() -> None:
    random = np.random.default_rng(7)
    cells: list[NDArray[np.int32]] = []
    for density in (0.4, 0.6, 0.75, 0.9):
        for _ in range(12):
            noise = (random.random((12, 15)) < density).astype(np.uint8)
            cells += [outline + np.array([90_000, 70_000], np.int32) for outline in outlines_of(noise)]
    cells += [random.integers(0, 10, (random.integers(1, 8), 2)).astype(np.int32) for _ in range(150)]

    polygons = polygons_of(*cells)

    assert 100 < sum(polygon.mended for polygon in polygons) < len(cells) - 100
    for cell, polygon in zip(cells, polygons, strict=True):
        ring, outline = Polygon(polygon.ring), Polygon(cell + 0.5) if len(cell) > 2 else None
        assert ring.is_valid
        assert ring.exterior.is_ccw
        assert ring.area > 0
        assert len(polygon.ring) >= 4
        assert (polygon.ring[0] == polygon.ring[-1]).all()
        assert polygon.mended == (outline is None or not outline.is_valid or not outline.area)
        if not polygon.mended:
            assert outline is not None
            assert ring.equals(outline)
        low, high = cell.min(axis=0), cell.max(axis=0) + 1
        assert (polygon.ring >= low).all()
        assert (polygon.ring <= high).all()
