"""What tiling needs of a slide, whoever decodes it. Coordinates are level-0 pixels, x to the right, y down."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.errors import UnreadableSlide
from encoders.types import SlideFacts


@dataclass(frozen=True)
class Level:
    """One level of the pyramid: its size in its own pixels, and level-0 pixels per pixel."""

    width: int
    height: int
    downsample: float


class SlideReader(Protocol):
    """An open slide. Facts and levels are taken on opening and stay valid after read errors."""

    @property
    def facts(self) -> SlideFacts:
        """What the file says of itself."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """Finest first; level 0 has downsample 1."""

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        """RGB uint8 [height, width, 3] of `level`, upper left corner at level-0 (x, y), white outside.

        Raises UnreadableSlide naming the level-0 rectangle; the reader stays usable. Safe to call from threads.
        """


def damaged(facts: SlideFacts, x: int, y: int, width: int, height: int) -> UnreadableSlide:
    """The error for a level-0 rectangle that cannot be read, clipped to the slide."""
    right, bottom = min(x + width, facts.width), min(y + height, facts.height)
    return UnreadableSlide(
        f"The slide is damaged in the level-0 rectangle ({x}, {y}) – ({right}, {bottom}); upload an intact copy."
    )
