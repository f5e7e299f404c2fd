"""The cells that the tiles of a slide, or of a region, are divided into, and which tiles are left out for each.

A grid over the tiles' bounding box; a cell has the tiles whose centre lies in it, and cells without any are none.
Imports no torch: the API divides too, and both sides have to come to the same.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.errors import UnknownCell

# A tissue is divided into so many rows and columns, and a cell that is looked at again into so many.
SIDE, FINER_SIDE = 8, 4
_ID_CHARS = 32
# Cells whose rows lie in a file together; the first are scored while others are made.
_CELLS_IN_A_PART = 4
# Changed when the same name would mean other tiles.
_VERSION = "1"


@dataclass(frozen=True)
class Cell:
    """A cell by name; `row` and `column` in its grid, its rectangle in level-0 pixels, and its tiles by index."""

    name: str
    row: int
    column: int
    x: float
    y: float
    width: float
    height: float
    tiles: NDArray[np.int64]


@dataclass(frozen=True)
class LeftOut:
    """Tiles that are left out together, by index, and the name of the rows that are made without them."""

    name: str
    tiles: NDArray[np.int64]


def divide(coords: NDArray[np.int64], side_px: float, parent: str | None = None) -> list[Cell]:
    """The cells of tiles with these level-0 corners [N, 2], row by row; with `parent`, those of that cell of them.

    Raises:
        UnknownCell: there is no such cell.
    """
    low, high = coords.min(axis=0).astype(float), coords.max(axis=0) + side_px
    tissue = _grid(coords + side_px / 2, np.arange(len(coords)), (low, high), SIDE)
    if parent is None:
        return tissue
    found = next((cell for cell in tissue if cell.name == parent), None)
    if found is None:
        raise UnknownCell(f"There is no cell {parent!r} with tissue; leave `cell` out to see which there are.")
    corner = np.array([found.x, found.y])
    box = (corner, corner + np.array([found.width, found.height]))
    finer = _grid((coords + side_px / 2)[found.tiles], found.tiles, box, FINER_SIDE)
    return [Cell(f"{parent}_{it.name}", it.row, it.column, it.x, it.y, it.width, it.height, it.tiles) for it in finer]


def around(cells: Sequence[Cell], cell: Cell) -> list[Cell]:
    """The cell and those that touch it."""
    return [it for it in cells if abs(it.row - cell.row) <= 1 and abs(it.column - cell.column) <= 1]


def left_out(cells: Sequence[Cell], tiles: int, evidence_id: str) -> list[LeftOut]:
    """What is left out for each cell, the cell with those around it, and behind each as many tiles from anywhere.

    Of what is seen in several cells side by side none alone is missed. What is taken from anywhere is drawn by the
    evidence's name, so it is the same each time.
    """
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(evidence_id.encode()).digest()[:8], "big"))
    found = []
    for cell in cells:
        area = np.sort(np.concatenate([it.tiles for it in around(cells, cell)]))
        anywhere = np.sort(rng.choice(tiles, len(area), replace=False))
        found += [LeftOut(f"without_{cell.name}", area), LeftOut(f"control_{cell.name}", anywhere)]
    return found


def parts_of(every: Sequence[LeftOut]) -> list[Sequence[LeftOut]]:
    """What is made together, in order; a cell's two are never parted."""
    step = 2 * _CELLS_IN_A_PART
    return [every[start : start + step] for start in range(0, len(every), step)]


def evidence_id(slide_id: str, encoder_id: str, region_id: str | None, parent: str | None) -> str:
    """The name of what is made for a slide or a region of it: the same for every answer about that."""
    named = "\0".join((_VERSION, slide_id, encoder_id, region_id or "", parent or ""))
    return f"evi_{hashlib.sha256(named.encode()).hexdigest()[:_ID_CHARS]}"


def _grid(
    centres: NDArray[np.floating[Any]],
    tiles: NDArray[np.int64],
    box: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]],
    side: int,
) -> list[Cell]:
    """`tiles` with these centres [n, 2] in a box, divided into side × side."""
    low, high = box
    step = (high - low) / side
    places = np.clip(((centres - low) / step).astype(np.int64), 0, side - 1)
    cells = []
    for row, column in sorted({(int(row), int(column)) for column, row in places.tolist()}):
        inside = tiles[(places[:, 1] == row) & (places[:, 0] == column)]
        x, y = low + step * [column, row]
        cells.append(Cell(f"r{row}c{column}", row, column, float(x), float(y), float(step[0]), float(step[1]), inside))
    return cells
