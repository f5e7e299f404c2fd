"""The JPEG tiles of one level at one scale, put together to regions."""

import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.area_mean import area_mean, mean_2x2
from encoders.tiling.slide_readers.decode_buffer import Scratch, decode_buffer
from encoders.tiling.slide_readers.decoded_tiles import DecodedTiles, TileKey
from encoders.tiling.slide_readers.eligible_levels import FastLevel, read_tile_by
from encoders.tiling.slide_readers.jpeg_tiles import UndecodableTile
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.slide_reader import Scale
from encoders.tiling.slide_readers.tiff_levels import YCBCR
from encoders.tiling.slide_readers.tile_spans import tile_spans


class ScaledLevel:
    """Coordinates and sizes are in pixels at that scale, which divides the tiles' sides. Safe to call from threads.

    For the mean of 2 × 2 pixels tiles are decoded to RGBA, of which it takes half the time. Not where streams are in
    RGB, which libjpeg-turbo decodes to four bytes more slowly.
    """

    def __init__(self, fast: FastLevel, level: int, scale: Scale, oracle: OpenSlideReader, cache: DecodedTiles) -> None:
        """`oracle` reads the tiles that do not decode; `cache` may be other levels' and scales' too."""
        image, factor = fast.image, scale.factor
        # The last pixels may be partly outside the image.
        self._width, self._height = -(-image.width // factor), -(-image.height // factor)
        self._tile_width, self._tile_height = image.tile_width // factor, image.tile_height // factor
        self._is_mean = factor > 1 and scale.reduction == "area"
        is_rgba = self._is_mean and factor == 2 and image.photometric == YCBCR
        self._stored_shape = image.tile_height, image.tile_width, 4 if is_rgba else 3
        self._mean = mean_2x2 if is_rgba else area_mean
        self._fast, self._level, self._scale = fast, level, scale
        self._oracle, self._cache = oracle, cache
        self._before_mean, self._of_one_region = Scratch(), Scratch()

    def fill(self, out: NDArray[np.uint8], left: int, top: int) -> None:
        """Fills `out` [height, width, 3] from (left, top) on, white outside the image; raises UnreadableSlide."""
        height, width = out.shape[:2]
        if min(left, top) < 0 or left + width > self._width or top + height > self._height:
            out.fill(255)
        columns = tile_spans(left, width, self._tile_width, self._width)
        for row in tile_spans(top, height, self._tile_height, self._height):
            for column in columns:
                target = out[row.in_region, column.in_region]
                if row.is_whole and column.is_whole and (self._is_mean or target.flags.c_contiguous):
                    self._decode(column.tile, row.tile, target)
                    continue
                # A tile that lies wholly in this region is no neighbour's: keeping it would drive out one that is.
                is_shared = not (row.is_all_inside and column.is_all_inside)
                pixels = self._tile(column.tile, row.tile, is_shared=is_shared)
                target[...] = pixels[row.in_tile, column.in_tile]

    def _tile(self, column: int, row: int, *, is_shared: bool) -> NDArray[np.uint8]:
        """Its pixels, to be read at once: those of a tile that is not shared are gone with the thread's next one."""
        key = TileKey(self._level, column, row, self._scale)
        pixels = self._cache.get(key)
        if pixels is not None:
            return pixels
        shape = self._tile_height, self._tile_width, 3
        pixels = decode_buffer(*shape) if is_shared else self._of_one_region.pixels(*shape)
        self._decode(column, row, pixels)
        if is_shared:
            self._cache.put(key, pixels)
        return pixels

    def _decode(self, column: int, row: int, out: NDArray[np.uint8]) -> None:
        """`out` may have gaps between its rows where the decoder does not write it itself: for a mean."""
        try:
            if self._is_mean:
                self._decode_mean(column, row, out)
            else:
                self._fast.tiles.decode(column, row, self._scale.factor, out)
        except UndecodableTile:
            area_mean(read_tile_by(self._oracle, self._fast, self._level, column, row), out)

    def _decode_mean(self, column: int, row: int, out: NDArray[np.uint8]) -> None:
        stored = self._before_mean.pixels(*self._stored_shape)
        self._fast.tiles.decode(column, row, 1, stored)
        self._mean(stored, out)
