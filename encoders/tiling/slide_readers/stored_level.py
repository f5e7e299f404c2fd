"""A JPEG level of a TIFF as it is stored, gaps and all, where OpenSlide would draw parts of it anew.

OpenSlide (openslide-vendor-aperio.c) takes the tiles of Aperio's low levels for missing wherever one of a finer level
has no bytes, and draws them from that level: less exactly, and without the tissue that only the low level has left.
"""

import os
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.decode_buffer import decode_buffer
from encoders.tiling.slide_readers.jpeg_tiles import JpegTiles, check_format
from encoders.tiling.slide_readers.tiff_levels import TiledImage
from encoders.tiling.slide_readers.tile_spans import tile_spans


class StoredLevel:
    """Regions in the level's own pixels. Safe to call from threads."""

    def __init__(self, path: Path, image: TiledImage) -> None:
        """Raises NotEligible where tiles are no baseline JPEG of three colours, or OSError."""
        check_format(image)
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, file)
        self._image = image
        self._tiles = JpegTiles(file, image)

    def read(self, left: int, top: int, width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB uint8 [height, width, 3], white where there are no pixels, and bool [height, width]: where there are.

        Raises UndecodableTile for damage, and ColorConflict.
        """
        image = self._image
        out = np.full((height, width, 3), 255, dtype=np.uint8)
        covered = np.zeros((height, width), dtype=np.bool_)
        pixels = decode_buffer(image.tile_height, image.tile_width, 3)
        for row in tile_spans(top, height, image.tile_height, image.height):
            for column in tile_spans(left, width, image.tile_width, image.width):
                if image.byte_counts[row.tile, column.tile]:
                    self._tiles.decode(column.tile, row.tile, 1, pixels)
                    out[row.in_region, column.in_region] = pixels[row.in_tile, column.in_tile]
                    covered[row.in_region, column.in_region] = True
        return out, covered
