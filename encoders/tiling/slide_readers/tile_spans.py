"""Finds the tiles of a grid that a region touches, one axis at a time."""

from functools import lru_cache
from typing import NamedTuple


class Span(NamedTuple):
    """What a region has of one tile along an axis."""

    tile: int
    in_tile: slice
    in_region: slice
    is_whole: bool
    """Every pixel of the tile."""
    is_all_inside: bool
    """Every pixel of the tile that lies in the image."""


# Neighbouring regions share their rows, and those below each other their columns.
@lru_cache(maxsize=4_096)
def tile_spans(start: int, count: int, tile_px: int, image_px: int) -> tuple[Span, ...]:
    """Of the region's `count` pixels from `start` on, those in the image's 0 to `image_px`, tile after tile."""
    first, stop = max(start, 0), min(start + count, image_px)
    if first >= stop:
        return ()
    tiles = range(first // tile_px, -(-stop // tile_px))
    return tuple(_span(start, first, stop, tile, tile_px, image_px) for tile in tiles)


def _span(start: int, first: int, stop: int, tile: int, tile_px: int, image_px: int) -> Span:
    tile_start = tile * tile_px
    low, high = max(first, tile_start), min(stop, tile_start + tile_px)
    pixels = high - low
    return Span(
        tile,
        slice(low - tile_start, high - tile_start),
        slice(low - start, high - start),
        pixels == tile_px,
        pixels == min(tile_px, image_px - tile_start),
    )
