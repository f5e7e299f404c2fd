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
from openslide import lowlevel


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
