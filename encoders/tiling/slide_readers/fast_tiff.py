"""SlideReader for tiled JPEG TIFFs (Aperio, generic), several times OpenSlide's speed and pixel for pixel equal to it.

OpenSlide spends three quarters of its time painting, not decoding. Here a tile's bytes go from the file through
libjpeg-turbo into the caller's buffer. OpenSlide stays inside: it serves the levels that are not eligible, reads any
tile that does not decode, and is what every eligible level was compared with on opening.
"""

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.decode_buffer import Scratch, decode_buffer
from encoders.tiling.slide_readers.decoded_tiles import DecodedTiles, TileKey
from encoders.tiling.slide_readers.eligible_levels import FastLevel, fast_level, match_levels, read_tile_by
from encoders.tiling.slide_readers.jpeg_tiles import UndecodableTile
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.reader_kind import ReaderReason
from encoders.tiling.slide_readers.reduce_region import read_and_reduce
from encoders.tiling.slide_readers.slide_reader import Scale
from encoders.tiling.slide_readers.tiff_levels import TiledImage

# One row of tiles of the widest slides: 300,000 px × 256 px × 3 bytes are 230 MB.
CACHE_BYTES = 256 * 2**20
_AS_STORED = Scale(1, "area")


class _Box(NamedTuple):
    """A rectangle, right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int

    def cut(self, other: "_Box") -> "_Box":
        return _Box(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )

    def moved(self, left: int, top: int) -> "_Box":
        return _Box(self.left + left, self.top + top, self.right + left, self.bottom + top)

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return pixels[self.top : self.bottom, self.left : self.right]


def _tiles_under(box: _Box, width: int, height: int) -> Iterator[tuple[int, int, _Box]]:
    """(column, row, box) of each tile of that size that `box` touches, row by row."""
    if box.left >= box.right or box.top >= box.bottom:
        return
    for row in range(box.top // height, -(-box.bottom // height)):
        for column in range(box.left // width, -(-box.right // width)):
            yield column, row, _Box(column * width, row * height, (column + 1) * width, (row + 1) * height)


def _is_mean(scale: Scale) -> bool:
    return scale.factor > 1 and scale.reduction == "area"


def _is_inside(image: TiledImage, factor: int, left: int, top: int, out: NDArray[np.uint8]) -> bool:
    """Whether every pixel of `out`, from (left, top) on at 1/factor, is a mean over pixels of the image alone."""
    height, width = out.shape[:2]
    return min(left, top) >= 0 and left + width <= image.width // factor and top + height <= image.height // factor


class FastTiffReader:
    """See the module. Level 0 is always served fast; `level_reasons` tells which of the others are."""

    def __init__(self, path: Path, oracle: OpenSlideReader, cache_bytes: int = CACHE_BYTES) -> None:
        """`oracle` has the same file open. Raises NotEligible when level 0 must be OpenSlide's."""
        self.facts = oracle.facts
        self.levels = oracle.levels
        self.tile_sizes = oracle.tile_sizes
        self._oracle = oracle
        self._cache = DecodedTiles(cache_bytes)
        self._before_mean, self._of_one_region = Scratch(), Scratch()
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise NotEligible("unreadable_directory") from None
        weakref.finalize(self, os.close, file)
        self._images = match_levels(file, oracle)
        level0 = fast_level(file, self._images, oracle, 0)
        others = [self._level_or_reason(file, level) for level in range(1, len(self.levels))]
        self._fast = [level0, *others]

    @property
    def level_reasons(self) -> tuple[ReaderReason, ...]:
        """ "eligible" for each level that is served without OpenSlide, else why it is not."""
        return tuple("eligible" if isinstance(level, FastLevel) else level for level in self._fast)

    @property
    def cached_bytes(self) -> int:
        """Bytes of decoded tiles held now."""
        return self._cache.held_bytes

    def tile_bytes(self, level: int) -> NDArray[np.int64] | None:
        """See SlideReader; None for a level that OpenSlide reads."""
        fast = self._fast[level]
        return fast.image.byte_counts if isinstance(fast, FastLevel) else None

    def read_region(
        self, x: int, y: int, level: int, width: int, height: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """See SlideReader. An error names the rectangle of the damaged JPEG tile."""
        fast = self._fast[level]
        if not isinstance(fast, FastLevel) or x % fast.downsample or y % fast.downsample:
            return self._oracle.read_region(x, y, level, width, height, out)
        if out is None:
            out = decode_buffer(height, width, 3)
        self._fill(out, level, _AS_STORED, x // fast.downsample, y // fast.downsample)
        return out

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
        """See SlideReader. Reduced tile by tile where the region lies on a grid of `factor` pixels."""
        fast = self._fast[level]
        if not isinstance(fast, FastLevel):
            return self._oracle.read_reduced(x, y, level, width, height, scale, out)
        image, factor = fast.image, scale.factor
        if out is None:
            out = decode_buffer(-(-height // factor), -(-width // factor), 3)
        step = fast.downsample * factor
        left, top = x // step, y // step
        is_on_grid = x % step == y % step == image.tile_width % factor == image.tile_height % factor == 0
        if is_on_grid and (scale.reduction == "dct" or _is_inside(image, factor, left, top, out)):
            self._fill(out, level, scale, left, top)
        else:
            read_and_reduce(self, x, y, level, factor, out)
        return out

    def _fill(self, out: NDArray[np.uint8], level: int, scale: Scale, left: int, top: int) -> None:
        """Fills `out` from (left, top) on; here and below pixels are those of the level at that scale."""
        image, factor = self._level(level).image, scale.factor
        region = _Box(left, top, left + out.shape[1], top + out.shape[0])
        inside = _Box(0, 0, -(-image.width // factor), -(-image.height // factor))
        covered = region.cut(inside)
        if covered != region:
            out.fill(255)
        tile_size = image.tile_width // factor, image.tile_height // factor
        for column, row, tile in _tiles_under(covered, *tile_size):
            key, part = TileKey(level, column, row, scale), tile.cut(covered)
            target = part.moved(-left, -top).of(out)
            if part == tile and (target.flags.c_contiguous or _is_mean(scale)):
                self._decode(key, target)
                continue
            # A tile that lies wholly in this region is no neighbour's: keeping it would drive out one that is.
            pixels = self._tile(key, tile_size, is_shared=part != tile.cut(inside))
            target[...] = part.moved(-tile.left, -tile.top).of(pixels)

    def _tile(self, key: TileKey, size: tuple[int, int], *, is_shared: bool) -> NDArray[np.uint8]:
        """Its pixels, to be read at once: those of a tile that is not shared are gone with the thread's next one."""
        pixels = self._cache.get(key)
        if pixels is not None:
            return pixels
        width, height = size
        pixels = decode_buffer(height, width, 3) if is_shared else self._of_one_region.pixels(height, width)
        self._decode(key, pixels)
        if is_shared:
            self._cache.put(key, pixels)
        return pixels

    def _decode(self, key: TileKey, out: NDArray[np.uint8]) -> None:
        """`out` may have gaps between its rows where the decoder does not write it itself: for a mean."""
        fast = self._level(key.level)
        try:
            if _is_mean(key.scale):
                stored = self._before_mean.pixels(fast.image.tile_height, fast.image.tile_width)
                fast.tiles.decode(key.column, key.row, 1, stored)
                cv2.resize(stored, out.shape[1::-1], dst=out, interpolation=cv2.INTER_AREA)
            else:
                fast.tiles.decode(key.column, key.row, key.scale.factor, out)
        except UndecodableTile:
            pixels = read_tile_by(self._oracle, fast, key.level, key.column, key.row)
            cv2.resize(pixels, out.shape[1::-1], dst=out, interpolation=cv2.INTER_AREA)

    def _level(self, level: int) -> FastLevel:
        fast = self._fast[level]
        assert isinstance(fast, FastLevel), "only asked of levels that are served fast"
        return fast

    def _level_or_reason(self, file: int, level: int) -> FastLevel | ReaderReason:
        try:
            return fast_level(file, self._images, self._oracle, level)
        except NotEligible as unfit:
            return unfit.reason
