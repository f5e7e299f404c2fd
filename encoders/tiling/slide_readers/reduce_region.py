"""A reduced region for readers whose decoder cannot reduce."""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.slide_reader import SlideReader


def read_and_reduce(reader: SlideReader, x: int, y: int, level: int, factor: int, out: NDArray[np.uint8]) -> None:
    """Fills `out` with the means over factor × factor pixels of `level`, upper left corner at level-0 (x, y)."""
    height, width = out.shape[:2]
    pixels = reader.read_region(x, y, level, width * factor, height * factor)
    cv2.resize(pixels, (width, height), dst=out, interpolation=cv2.INTER_AREA)
