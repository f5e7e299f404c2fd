"""DeepZoom's grid against openslide-python's own generator."""

import openslide
import pytest
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from encoders.tiling.pictures.deep_zoom import TILE_PX, DeepZoom


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (256, 256), (257, 255), (1, 700), (1025, 512), (1500, 1111)])
def test_levels_and_tiles_are_those_of_the_other_implementation(size: tuple[int, int]) -> None:
    other = DeepZoomGenerator(openslide.ImageSlide(Image.new("RGB", size)), TILE_PX, 0)
    pyramid = DeepZoom(*size)

    levels = range(pyramid.level_count)
    assert tuple(pyramid.size(level) for level in levels) == other.level_dimensions
    assert tuple(pyramid.grid(level) for level in levels) == other.level_tiles
    for level in levels:
        columns, rows = pyramid.grid(level)
        for column, row in [(0, 0), (columns - 1, rows - 1)]:
            place = pyramid.place(level, column, row)
            assert place is not None
            assert (place.width, place.height) == other.get_tile_dimensions(level, (column, row))


def test_there_is_nothing_beside_the_grid() -> None:
    pyramid = DeepZoom(1000, 300)

    assert pyramid.place(10, 3, 1) is not None
    for address in [(10, 4, 0), (10, 0, 2), (10, -1, 0), (10, 0, -1), (-1, 0, 0), (11, 0, 0), (0, 1, 0)]:
        assert pyramid.place(*address) is None
