"""SlideReader for tiled JPEG TIFFs (Aperio, generic), several times OpenSlide's speed and pixel for pixel equal to it.

OpenSlide spends three quarters of its time painting, not decoding. Here a tile's bytes go from the file through
libjpeg-turbo into the caller's buffer. OpenSlide stays inside: it serves the levels that are not eligible, reads any
tile that does not decode, and is what every eligible level was compared with on opening.
"""

import os
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.container_colors import check_tiff_colors
from encoders.tiling.slide_readers.decode_buffer import decode_buffer
from encoders.tiling.slide_readers.decoded_tiles import DecodedTiles
from encoders.tiling.slide_readers.eligible_levels import FastLevel, fast_level, match_levels
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.reader_kind import ReaderReason
from encoders.tiling.slide_readers.reduce_region import read_and_reduce
from encoders.tiling.slide_readers.scaled_level import ScaledLevel
from encoders.tiling.slide_readers.slide_reader import Scale
from encoders.tiling.slide_readers.tiff_levels import TiledImage
from encoders.types import SlideWarning

# One row of tiles of the widest slides: 300,000 px × 256 px × 3 bytes are 230 MB.
CACHE_BYTES = 256 * 2**20
_CONTRADICTED = SlideWarning(
    "colors_contradicted",
    "Tiles are compressed in another colour space than the file says. They were read by what they say themselves.",
)
_AS_STORED = Scale(1, "area")


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
        self._scaled: dict[tuple[int, Scale], ScaledLevel] = {}
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise NotEligible("unreadable_directory") from None
        weakref.finalize(self, os.close, file)
        self._images = match_levels(oracle)
        level0 = fast_level(file, self._images, oracle, 0)
        others = [self._level_or_reason(file, level) for level in range(1, len(self.levels))]
        self._fast = [level0, *others]
        self._file = file
        self._checked_levels: set[int] = set()
        if oracle.denies_colors:  # whether or not such tiles are found here, they are decoded right
            self.facts = replace(self.facts, warnings=(*self.facts.warnings, _CONTRADICTED))

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
            self._check_level_for_oracle(level)
            return self._oracle.read_region(x, y, level, width, height, out)
        if out is None:
            out = decode_buffer(height, width, 3)
        self._at_scale(level, _AS_STORED).fill(out, x // fast.downsample, y // fast.downsample)
        return out

    def read_covered(
        self, x: int, y: int, level: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """See SlideReader. A level that is served fast has no holes."""
        if isinstance(self._fast[level], FastLevel):
            return self.read_region(x, y, level, width, height), None
        self._check_level_for_oracle(level)
        return self._oracle.read_covered(x, y, level, width, height)

    def empty_tiles(self, level: int) -> NDArray[np.bool_] | None:
        """See SlideReader."""
        fast = self._fast[level]
        return fast.image.byte_counts == 0 if isinstance(fast, FastLevel) else self._oracle.empty_tiles(level)

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
            self._check_level_for_oracle(level)
            return self._oracle.read_reduced(x, y, level, width, height, scale, out)
        image, factor = fast.image, scale.factor
        if out is None:
            out = decode_buffer(-(-height // factor), -(-width // factor), 3)
        step = fast.downsample * factor
        left, top = x // step, y // step
        is_on_grid = x % step == y % step == image.tile_width % factor == image.tile_height % factor == 0
        if is_on_grid and (scale.reduction == "dct" or _is_inside(image, factor, left, top, out)):
            self._at_scale(level, scale).fill(out, left, top)
        else:
            read_and_reduce(self, x, y, level, factor, out)
        return out

    def _check_level_for_oracle(self, level: int) -> None:
        """OpenSlide decodes by the directory's colours, so no tile of the level may say others."""
        if level not in self._checked_levels:
            check_tiff_colors(self._file, self._images[level])
            self._checked_levels.add(level)

    def _at_scale(self, level: int, scale: Scale) -> ScaledLevel:
        """Of a level that is served fast."""
        tiles = self._scaled.get((level, scale))
        if tiles is None:
            fast = self._fast[level]
            assert isinstance(fast, FastLevel), "only asked of levels that are served fast"
            tiles = ScaledLevel(fast, level, scale, self._oracle, self._cache)
            tiles = self._scaled.setdefault((level, scale), tiles)
        return tiles

    def _level_or_reason(self, file: int, level: int) -> FastLevel | ReaderReason:
        try:
            return fast_level(file, self._images, self._oracle, level)
        except NotEligible as unfit:
            return unfit.reason
