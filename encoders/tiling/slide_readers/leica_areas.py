"""The areas that a Leica scanner scanned of its slide, and the part of each that lies in a region to be read.

OpenSlide 4 places each area by itself (openslide-vendor-leica.c): it divides the position by the level's downsample,
subtracts the area's corner, and cuts what comes out to whole pixels towards zero, which is down inside of the area and
up before it. Where the downsample is not a whole number, no one position is right for areas on both sides of it.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from openslide import lowlevel

from encoders.tiling.slide_readers.paint_region import Where, paint


class ScannedArea(NamedTuple):
    """In level-0 pixels."""

    x: int
    y: int
    width: int
    height: int


class AreaPart(NamedTuple):
    """The rows and columns of a region that an area fills, and on which side of the region's corner it begins."""

    place: tuple[slice, slice]
    begins_right: bool
    begins_below: bool


def scanned_areas(handle: lowlevel._OpenSlide) -> tuple[ScannedArea, ...]:
    """All areas of a slide; raises OpenSlideError."""
    return tuple(_said_areas(handle))


def _said_areas(handle: lowlevel._OpenSlide) -> Iterator[ScannedArea]:
    for number in count():
        said = [
            lowlevel.get_property_value(handle, f"openslide.region[{number}].{name}") for name in ScannedArea._fields
        ]
        numbers = [int(value) for value in said if value is not None]
        if len(numbers) < len(said):
            return
        yield ScannedArea(*numbers)


def parts_of_areas(
    areas: Sequence[ScannedArea], x: int, y: int, downsample: float, shape: tuple[int, ...]
) -> list[AreaPart]:
    """The areas' parts of the region of `shape` (height, width) at level-0 (x, y), in pixels of the level."""
    height, width = shape
    found = []
    for area in areas:
        left, top = (math.floor(it / downsample) for it in (area.x - x, area.y - y))
        right, bottom = (math.ceil(it / downsample) for it in (area.x + area.width - x, area.y + area.height - y))
        if left < width and top < height and right > 0 and bottom > 0:
            found.append(AreaPart(np.s_[max(0, top) : bottom, max(0, left) : right], left > 0, top > 0))
    return found


def paint_by_area(
    handle: lowlevel._OpenSlide,
    number: int,
    position: tuple[float, float],
    parts: Sequence[AreaPart],
    out: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Fills `out`, each area's part from a position at which it falls on its own pixels; alpha [height, width].

    `number` is the level's, and `position` the region's corner by OpenSlide's own downsample, in level-0 (x, y).
    """
    alpha = np.zeros(out.shape[:2], dtype=np.uint8)
    out[:] = 255
    own = np.empty_like(out)
    for ahead in sorted({(part.begins_right, part.begins_below) for part in parts}):
        x, y = (
            math.floor(along) if is_ahead else math.ceil(along) for along, is_ahead in zip(position, ahead, strict=True)
        )
        own_alpha = paint(handle, Where(number, x, y), own)
        for place in (part.place for part in parts if (part.begins_right, part.begins_below) == ahead):
            seen = own_alpha[place] > 0
            out[place][seen], alpha[place][seen] = own[place][seen], own_alpha[place][seen]
    return alpha
