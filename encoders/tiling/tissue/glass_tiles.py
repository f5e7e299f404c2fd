"""Tiles that are obviously glass, told by their compressed size: free, because a slide's directory lists it.

On CMU-1 blank tiles take at most 2.6 kB and tiles with more than a tenth of tissue at least 5.3 kB. But smooth ink
and a scan's frame are as small as glass, and faint tissue is not much larger. So only what is hardly larger than the
smallest counts, and nobody concludes from it what colour the tile has.
"""

import numpy as np
from numpy.typing import NDArray

# The smallest tiles may be something else than glass: a twentieth of the slide is smaller than what glass is taken for.
_SMALLEST_PERCENT, _LARGE_PERCENT = 5, 99
# Blank tiles of one slide vary by 3-20 %; the edge of a pen stroke in a tile adds more than 15 %.
_HARDLY_LARGER = 1.10
# A slide without such large tiles shows no tissue, or shows only tissue: no telling.
_MUCH_LARGER = 2.0


def find_glass_tiles(tile_bytes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bool [rows, columns] of compressed sizes [rows, columns]; none when in doubt."""
    smallest, large = np.percentile(tile_bytes, [_SMALLEST_PERCENT, _LARGE_PERCENT])
    largest_glass = smallest * _HARDLY_LARGER
    # A tile of no bytes is drawn from another level.
    if not tile_bytes.all() or large < largest_glass * _MUCH_LARGER:
        return np.zeros(tile_bytes.shape, dtype=np.bool_)
    return np.asarray(tile_bytes <= largest_glass, dtype=np.bool_)
