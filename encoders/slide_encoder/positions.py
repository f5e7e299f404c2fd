"""A tile's position as LongNet sees it: a cell of a coarse grid and its sine-cosine row.

The published model holds a table of slide_ngrids² + 1 rows (3 GB at 1000 × 768). The table is separable, so a
row is put together from two entries of one [slide_ngrids, D / 2] axis table, bit-equal to the published row.
Knows nothing of attention.
"""

import numpy as np
import torch
from torch import Tensor

from encoders.errors import SlideTooLarge

# From the paper "Attention is all you need"; the published table uses it per axis.
WAVELENGTH_BASE = 10000.0


class CoordinatesOutOfRange(SlideTooLarge, ValueError):
    """A tile lies outside the slide encoder's grid: negative, beyond its end, or not a number."""


def axis_table(cells: int, width: int) -> Tensor:
    """Sine-cosine encoding of the cells 0 … cells - 1 of one axis: fp32 [cells, width], sines first.

    Computed in float64 by numpy and rounded once, as the published table is; another library's sine may
    differ in the last bit.
    """
    omega = 1.0 / WAVELENGTH_BASE ** (np.arange(width // 2, dtype=np.float64) / (width / 2.0))
    angles = np.arange(cells, dtype=np.float64)[:, None] * omega[None, :]
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32))


def grid_index(coords: Tensor, tile_size: float, slide_ngrids: int) -> Tensor:
    """Index of each tile's cell, x · slide_ngrids + y: int64 [L], on the CPU wherever the coordinates are.

    `coords` [L, 2] are (x, y) and `tile_size` is the tile stride, both in level-0 pixels. A y beyond the grid
    runs on into the next x, as it does in the published model; an index beyond the whole grid raises.
    """
    if not tile_size > 0:
        raise ValueError(f"tile_size must be a positive number of level-0 pixels, not {tile_size}.")
    # CUDA divides by a number by multiplying by its reciprocal: some multiples of a stride end in the cell before, for
    # 272 of the strides from 100 to 2099 px in float32 and for 228 in float64.
    cells = torch.floor(coords.to("cpu", torch.float64) / tile_size)
    index = cells[:, 0] * slide_ngrids + cells[:, 1]
    # Written so that NaN fails too: every comparison with it is false.
    inside = (cells >= 0).all(dim=1) & (index < slide_ngrids**2)
    if not bool(inside.all()):
        raise CoordinatesOutOfRange(
            f"{int((~inside).sum())} of {len(coords)} tiles are outside the slide encoder's grid of "
            f"{slide_ngrids} x {slide_ngrids} cells of {tile_size:g} px: give coordinates in level-0 pixels from the "
            "slide's upper left corner, none negative, and the tile stride in level-0 pixels as tile_size."
        )
    return index.long()


def position_rows(index: Tensor, slide_ngrids: int, embed_dim: int) -> Tensor:
    """Position encoding of the cells of `grid_index`: fp32 [L, embed_dim], first half y, second half x."""
    table = axis_table(slide_ngrids, embed_dim // 2).to(index.device)
    return torch.cat([table[index % slide_ngrids], table[index // slide_ngrids]], dim=1)
