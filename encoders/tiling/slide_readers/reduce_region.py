"""A reduced region for readers whose decoder cannot reduce."""

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.slide_reader import SlideReader


def read_and_reduce(
    reader: SlideReader, x: int, y: int, level: int, width: int, height: int, factor: int
) -> NDArray[np.uint8]:
    """SlideReader.read_reduced as the mean over each pixel's area, which is exact."""
    columns, rows = -(-width // factor), -(-height // factor)
    pixels = reader.read_region(x, y, level, columns * factor, rows * factor)
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)
