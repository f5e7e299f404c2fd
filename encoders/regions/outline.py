"""The outline of a region: one polygon in level-0 pixels, which may touch itself and not cross itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import UnusableRegion

# A line drawn by hand, thinned to what can be seen. Crossings are looked for in pairs, so time goes with the square.
MAX_CORNERS = 1_000
# Beyond any slide; products of two such numbers are exact enough in 64 bits.
_MOST_PX = 1e7


@dataclass(frozen=True)
class Outline:
    """Corners float64 [V, 2], level-0 (x, y), in either direction; the last one is joined to the first."""

    corners: NDArray[np.float64]

    @classmethod
    def of(cls, corners: Sequence[Sequence[float]]) -> "Outline":
        """The polygon through these corners; the first may stand at the end again.

        Raises:
            UnusableRegion: not a polygon, or one that crosses itself.
        """
        if len(corners) > MAX_CORNERS:
            raise UnusableRegion(f"The region has more than {MAX_CORNERS} corners; send every second one, or fewer.")
        if any(len(corner) != 2 for corner in corners):
            raise UnusableRegion("A corner of the region is not two numbers; send [x, y] for each.")
        if not all(math.isfinite(value) and abs(value) <= _MOST_PX for corner in corners for value in corner):
            raise UnusableRegion(
                "A corner of the region is no place on a slide; send finite numbers of level-0 pixels."
            )
        points = np.array(corners, dtype=np.float64).reshape(-1, 2)
        points = points[np.any(points != np.roll(points, 1, axis=0), axis=1)]
        crossing = _crossing(points)
        if crossing is not None:
            raise UnusableRegion(
                f"The region's outline crosses itself near x {crossing[0]:.0f}, y {crossing[1]:.0f}; draw it again "
                "without a loop."
            )
        if len(points) < 3 or _area_px(points) == 0:
            raise UnusableRegion("The region has no area; send three or more corners that are not in line.")
        return cls(points)

    @classmethod
    def rectangle(cls, x: float, y: float, width: float, height: float) -> "Outline":
        """The rectangle of that size with its upper left corner at (x, y).

        Raises:
            UnusableRegion: it has no size, or is no place on a slide.
        """
        if not (width > 0 and height > 0):
            raise UnusableRegion("The region's width and height must be above 0; x and y are its upper left corner.")
        return cls.of([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])

    def require_touches(self, width: int | None, height: int | None) -> None:
        """Raises UnusableRegion when all of it lies beside a slide of that size; None is not known."""
        left, top = self.corners.min(axis=0)
        right, bottom = self.corners.max(axis=0)
        is_beside = right <= 0 or bottom <= 0
        is_beside |= (width is not None and left >= width) or (height is not None and top >= height)
        if is_beside:
            size = "" if width is None or height is None else f", which is {width} × {height} pixels of level 0"
            raise UnusableRegion(f"The region lies outside the slide{size}; draw it on the slide.")


def _area_px(points: NDArray[np.float64]) -> float:
    x, y = points.T
    return float(abs(np.dot(x - x[0], np.roll(y, -1) - np.roll(y, 1)))) / 2


def _crossing(points: NDArray[np.float64]) -> tuple[float, float] | None:
    """A place where two edges cross, not merely touch: each has its ends on both sides of the other."""
    edges = np.roll(points, -1, axis=0) - points
    to_corners = points[None] - points[:, None]
    side = edges[:, None, 0] * to_corners[..., 1] - edges[:, None, 1] * to_corners[..., 0]
    is_parted = side * np.roll(side, -1, axis=1) < 0
    first, second = np.nonzero(is_parted & is_parted.T)
    if not len(first):
        return None
    one, other = first[0], second[0]
    share = side[other, one] / (side[other, one] - side[other, (one + 1) % len(points)])
    x, y = points[one] + share * edges[one]
    return float(x), float(y)
