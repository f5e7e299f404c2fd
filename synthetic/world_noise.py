"""Random numbers that belong to places of the world: any part of a slide can be drawn alone and gets the same ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_COLUMN, _ROW = np.uint64(0xD1B54A32D192ED03), np.uint64(0xAEF17502108EF2D9)


@dataclass(frozen=True)
class Box:
    """A rectangle of the slide in µm from its upper left corner, x to the right, y down."""

    left: float
    top: float
    right: float
    bottom: float

    def grown(self, by_um: float) -> "Box":
        """The box with a margin on each side."""
        return Box(self.left - by_um, self.top - by_um, self.right + by_um, self.bottom + by_um)


@dataclass(frozen=True)
class Scatter:
    """Points [n, 2] in µm (x, y) of a jittered grid, and each point's own uniform numbers [n, k]."""

    points: Points
    chances: Points

    def where(self, keep: NDArray[np.bool_]) -> "Scatter":
        """The points for which `keep` [n] is true."""
        return Scatter(self.points[keep], self.chances[keep])


def scatter(key: tuple[int, int], box: Box, pitch_um: float, *, jitter: float = 0.55, chances: int = 4) -> Scatter:
    """One point per cell of a staggered grid over the box; `key` is the slide's seed and the kind of thing drawn.

    Points may lie up to a pitch outside of the box; order is by row, then column.
    """
    row_um = pitch_um * 0.87
    rows = np.arange(np.floor(box.top / row_um) - 1, np.ceil(box.bottom / row_um) + 1, dtype=np.int64)
    columns = np.arange(np.floor(box.left / pitch_um) - 1, np.ceil(box.right / pitch_um) + 1, dtype=np.int64)
    column, row = (part.ravel() for part in np.meshgrid(columns, rows))
    numbers = uniforms(key, column, row, chances + 2)
    x = (column + 0.5 * (row % 2) + 0.5 + jitter * (numbers[:, 0] - 0.5)) * pitch_um
    y = (row + 0.5 + jitter * (numbers[:, 1] - 0.5)) * row_um
    return Scatter(np.stack([x, y], axis=1).astype(np.float32), numbers[:, 2:])


def uniforms(key: tuple[int, int], column: NDArray[np.int64], row: NDArray[np.int64], count: int) -> Points:
    """Float32 [n, count] in 0 … 1, a hash (splitmix64) of key and cell."""
    # Arrays, for which numpy wraps around without a warning.
    seed, stream = (np.array([part % 2**64], dtype=np.uint64) for part in key)
    start = _mixed(seed + _GOLDEN) + stream * np.uint64(0x632BE59BD9B4E019)
    cell = _mixed(column.astype(np.uint64) * _COLUMN ^ _mixed(row.astype(np.uint64) * _ROW + start))
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return np.asarray((_mixed(cell[:, np.newaxis] + steps) >> np.uint64(40)) / np.float32(2**24), dtype=np.float32)


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
