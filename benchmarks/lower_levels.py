"""The levels below level 0, made while its tiles pass by: a band of one row of tiles per level is held."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from benchmarks.jpeg_streams import encode_tile
from benchmarks.slide_recipes import SlideRecipe
from benchmarks.tissue_torus import Rgb

_GREY = 243
# Below about one grey level of noise blank tiles are smaller than scanners' (1.4 kB).
_NOISE_GREY = 1.2
_VARIANTS = 64


class Glass:
    """Tiles without tissue: noise on a light grey, a few variants drawn and encoded once for all levels."""

    def __init__(self, recipe: SlideRecipe) -> None:
        rng = np.random.default_rng([recipe.seed, 13])
        shape = (_VARIANTS, recipe.tile_px, recipe.tile_px, 3)
        noise = rng.standard_normal(shape, dtype=np.float32) * _NOISE_GREY
        self._pixels = np.asarray(np.round(_GREY + noise), dtype=np.uint8)
        self._encoded = [encode_tile(variant, recipe.coding).tile for variant in self._pixels]
        self.tables = encode_tile(self._pixels[0], recipe.coding).tables

    def pixels(self, row: int = 0, column: int = 0) -> Rgb:
        """RGB uint8 [tile, tile, 3] of the tile at this place."""
        return np.asarray(self._pixels[_variant(row, column)])

    def encoded(self, row: int, column: int) -> bytes:
        """The same, encoded."""
        return self._encoded[_variant(row, column)]


class LowerLevel:
    """Takes the tiles of the level above in raster order and passes its own on to the next.

    `encoded` are its tiles in raster order, in rows of `columns`.
    """

    def __init__(self, recipe: SlideRecipe, glass: Glass, steps: Sequence[int], columns: int, rows: int) -> None:
        self._recipe, self._glass, self._step = recipe, glass, steps[0]
        self._above = columns, rows
        self.columns = -(-columns // steps[0])
        self.encoded: list[bytes] = []
        rows = -(-rows // steps[0])
        self.next = LowerLevel(recipe, glass, steps[1:], self.columns, rows) if len(steps) > 1 else None
        self._band = np.empty((recipe.tile_px, self.columns, recipe.tile_px, 3), dtype=np.uint8)
        self._clear()

    def put(self, row: int, column: int, tile: Rgb | None) -> None:
        """One tile of the level above; None is glass."""
        if tile is not None:
            self._reduce(row % self._step, column, tile)
        columns, rows = self._above
        if column == columns - 1 and (row % self._step == self._step - 1 or row == rows - 1):
            self._finish_band(row // self._step)

    def _reduce(self, row: int, column: int, tile: Rgb) -> None:
        side = self._recipe.tile_px // self._step
        column, left = column // self._step, column % self._step * side
        small = cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA)
        self._band[row * side : (row + 1) * side, column, left : left + side] = small
        self._has_tissue[column] = True

    def _finish_band(self, row: int) -> None:
        for column, has_tissue in enumerate(self._has_tissue):
            tile = self._band[:, column] if has_tissue else None
            stream = self._glass.encoded(row, column) if tile is None else encode_tile(tile, self._recipe.coding).tile
            self.encoded.append(stream)
            if self.next is not None:
                self.next.put(row, column, tile)
        self._clear()

    def _clear(self) -> None:
        self._band[:] = self._glass.pixels()[:, np.newaxis]
        self._has_tissue = np.zeros(self.columns, dtype=np.bool_)


def chain(level: LowerLevel | None) -> Iterator[LowerLevel]:
    """A level and all below it."""
    while level is not None:
        yield level
        level = level.next


def _variant(row: int, column: int) -> int:
    return (row * 31 + column * 7) % _VARIANTS
