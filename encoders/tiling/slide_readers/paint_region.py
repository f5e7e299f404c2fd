"""A region as OpenSlide paints it, and where it has to be asked for it; past its wrapper, which goes through PIL."""

from ctypes import POINTER, c_uint32
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from openslide import lowlevel

# Of a pixel: what lies so near to a whole position is painted with a hundredth of its neighbour.
_EXACT = 0.01
_MAX_SKIPPED_PX = 64


class Where(NamedTuple):
    """What OpenSlide is asked for: level-0 (x, y) by its own downsample, and the pixels before the wanted ones."""

    number: int
    x: int
    y: int
    skipped_columns: int = 0
    skipped_rows: int = 0


def at_own_pixel(number: int, painted: float, left: int, top: int) -> Where:
    """Where OpenSlide finds the pixel (left, top) of a level, though it divides by `painted` and takes whole positions.

    Where that would fall between two pixels, painting begins a few pixels earlier, at one that it hits.
    """
    (x, skipped_columns), (y, skipped_rows) = _hit(left, painted), _hit(top, painted)
    return Where(number, x, y, skipped_columns, skipped_rows)


@lru_cache(maxsize=65_536)
def _hit(pixel: int, painted: float) -> tuple[int, int]:
    """The level-0 position, and how many pixels before `pixel` it lies: the first that is as good as exact."""

    def miss(skipped: int) -> float:
        position = (pixel - skipped) * painted
        return abs(round(position) - position)

    skipped = next((it for it in range(_MAX_SKIPPED_PX) if miss(it) <= _EXACT * painted), None)
    if skipped is None:
        skipped = min(range(_MAX_SKIPPED_PX), key=miss)
    return round((pixel - skipped) * painted), skipped


def paint(handle: lowlevel._OpenSlide, where: Where, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fills `out`; alpha [height, width], 255 where the file has pixels."""
    height, width = out.shape[0] + where.skipped_rows, out.shape[1] + where.skipped_columns
    bgra = np.empty((height, width, 4), dtype=np.uint8)
    # The public wrapper goes through PIL, which costs a quarter more and un-multiplies alpha.
    buffer = bgra.ctypes.data_as(POINTER(c_uint32))
    lowlevel._read_region(handle, buffer, where.x, where.y, where.number, width, height)
    wanted = bgra[where.skipped_rows :, where.skipped_columns :]
    _on_white(wanted, out)
    return wanted[..., 3]


def _on_white(bgra: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """RGB of premultiplied BGRA over white: outside a slide OpenSlide gives (0, 0, 0, 0), which would be black."""
    cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGB, dst=out)
    uncovered = 255 - bgra[..., 3]
    if uncovered.any():
        cv2.add(out, cv2.merge([uncovered] * 3), dst=out)
