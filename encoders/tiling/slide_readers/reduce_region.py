"""A reduced region for readers whose decoder cannot reduce."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.area_mean import area_mean
from encoders.tiling.slide_readers.slide_reader import Scale, SlideReader


class ReducesByArea(ABC):
    """The part of a SlideReader that is the same for all whose decoder cannot reduce."""

    @abstractmethod
    def read_region(
        self, x: int, y: int, level: int, width: int, height: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """See SlideReader."""

    def read_covered(
        self, x: int, y: int, level: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """See SlideReader; without holes."""
        return self.read_region(x, y, level, width, height), None

    def empty_tiles(self, level: int) -> NDArray[np.bool_] | None:
        """See SlideReader; none is."""
        return np.zeros((1, 1), dtype=np.bool_)

    def read_reduced(
        self,
        x: int,
        y: int,
        level: int,
        width: int,
        height: int,
        scale: Scale,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """See SlideReader; always the mean over each pixel's area."""
        if out is None:
            out = np.empty((-(-height // scale.factor), -(-width // scale.factor), 3), dtype=np.uint8)
        read_and_reduce(self, x, y, level, scale.factor, out)
        return out


def read_and_reduce(
    reader: SlideReader | ReducesByArea, x: int, y: int, level: int, factor: int, out: NDArray[np.uint8]
) -> None:
    """Fills `out` with the means over factor × factor pixels of `level`, upper left corner at level-0 (x, y)."""
    height, width = out.shape[:2]
    pixels = reader.read_region(x, y, level, width * factor, height * factor)
    area_mean(pixels, out)
