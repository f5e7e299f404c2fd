"""Refuses TIFFs whose last tiles are cut to the picture's border: TIFF wants whole ones, and decoders see damage."""

import os
from collections.abc import Iterable

import numpy as np

from encoders.errors import UnsupportedFormat
from encoders.tiling.slide_readers.jpeg_segments import FRAMES, START, MalformedJpeg, segments
from encoders.tiling.slide_readers.stream_colors import HEAD_BYTES
from encoders.tiling.slide_readers.tiff_levels import TiledImage

_JPEG = 7


def require_whole_tiles(file: int, images: Iterable[TiledImage]) -> None:
    """Looks at the head of each JPEG image's last tile in the first row, and in the first column; raises
    UnsupportedFormat where one is smaller than a tile and just as large as what is left of the picture."""
    for image in images:
        width, height = (
            side % tile for side, tile in ((image.width, image.tile_width), (image.height, image.tile_height))
        )
        whole = image.tile_width, image.tile_height
        if image.compression != _JPEG:
            continue
        if (width and _size(file, image, 0, -1) in ((width, whole[1]), (width, height))) or (
            height and _size(file, image, -1, 0) in ((whole[0], height), (width, height))
        ):
            raise UnsupportedFormat(
                "The tiles at the slide's right and lower border are cut to its size, where TIFF wants whole tiles. "
                "Export it again with whole tiles, or send the scanner's original file."
            )


def _size(file: int, image: TiledImage, row: int, column: int) -> tuple[int, int] | None:
    """(width, height) that a tile's frame header says; None where there is none."""
    count = int(image.byte_counts[row, column])
    head = os.pread(file, min(count, HEAD_BYTES), int(image.offsets[row, column]))
    if not head.startswith(START):
        return None
    try:
        for segment in segments(head):
            if segment.marker in FRAMES:
                height, width = np.frombuffer(head, ">u2", 2, segment.start + 5).tolist()
                return width, height
    except (MalformedJpeg, ValueError):
        pass
    return None
