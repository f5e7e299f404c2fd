"""Tissue on a synthetic slide: a smooth random field above zero."""

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.slide_recipes import SlideRecipe
from synthetic.smooth_noise import relative_noise

_STEP_PX = 64
# Of the field per unit of tissue: from glass to tissue in about a tile.
_EDGE_SHARPNESS = 40.0


class TissueField:
    """`some` and `all` are bool [rows, columns]: the tiles of level 0 that have any tissue, and nothing else."""

    def __init__(self, recipe: SlideRecipe) -> None:
        rng = np.random.default_rng([recipe.seed, 11])
        rows, columns = (count * recipe.tile_px // _STEP_PX + 2 for count in (recipe.rows, recipe.columns))
        shape = (rows, columns)
        field = relative_noise(rng, shape, recipe.pieces) + 0.1 * relative_noise(rng, shape, 10 * recipe.pieces)
        field -= np.quantile(field, 1 - recipe.tissue_share)
        self._field = np.asarray(field * _EDGE_SHARPNESS, dtype=np.float32)
        self._tile_px = recipe.tile_px
        patches = [self._nodes(row, column) for row in range(recipe.rows) for column in range(recipe.columns)]
        tiles = (recipe.rows, recipe.columns)
        self.some = np.array([patch.max() > 0 for patch in patches]).reshape(tiles)
        self.all = np.array([patch.min() >= 1 for patch in patches]).reshape(tiles)

    def alpha(self, row: int, column: int) -> NDArray[np.float32]:
        """Float32 [tile, tile, 1], 0 … 1: how much of each pixel of a tile is tissue."""
        along = np.arange(self._tile_px, dtype=np.float32) / _STEP_PX
        x, y = (np.float32(place * self._tile_px / _STEP_PX) for place in (column, row))
        field = cv2.remap(self._field, *np.meshgrid(along + x, along + y), cv2.INTER_LINEAR)
        return np.asarray(np.clip(field, 0, 1)[..., np.newaxis], dtype=np.float32)

    def _nodes(self, row: int, column: int) -> NDArray[np.float32]:
        """The nodes between which the pixels of a tile are interpolated."""
        top, left = (place * self._tile_px // _STEP_PX for place in (row, column))
        nodes = -(-self._tile_px // _STEP_PX) + 2
        return self._field[top : top + nodes, left : left + nodes]
