"""Colours and hatching of the overlay, in RGB. Chosen to differ from H&E's pink and purple, and from each other."""

import numpy as np
from numpy.typing import NDArray

TISSUE_RGB = (0, 150, 110)
TILE_RGB = (20, 50, 130)
PEN_RGB = (255, 210, 0)
STROKE_RGB = (30, 30, 30)
UNSCANNED_RGB, UNSCANNED_DARK_RGB = (206, 206, 206), (186, 186, 186)
_HATCH_PERIOD_PX, _HATCH_LINE_PX = 8, 3


def hatch(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Bool [h, w]: diagonal lines."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((rows + columns) % _HATCH_PERIOD_PX < _HATCH_LINE_PX, dtype=np.bool_)
