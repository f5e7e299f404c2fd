"""A small picture of the whole tissue area, drawn block by block: no level is ever held whole at its own size."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.errors import SlideTooLarge, UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.slide_reader import SlideReader
from encoders.tiling.tissue.decode_small import decode_small, small_decode

# 2,048² RGBA and RGB are 30 MB; smaller blocks paint more seams twice.
BLOCK_PX = 2_048
# A fault found in a block is narrowed down to about one JPEG tile.
SMALLEST_FAULT_PX = 256
# Holds the picture below 200 MB on the largest slides.
MAX_SIDE_PX = 8_192
# Up to this many pixels a level is painted whole, which takes OpenSlide a second.
EXACT_PX = 64_000_000


@dataclass(frozen=True)
class Overview:
    """RGB uint8 [h, w, 3]; pixel (i, j) covers level-0 `i … i + 1` times `px_level0` down, `j …` across.

    `covered` is bool [h, w]: where its level has pixels, or the slide ends; None for everywhere.
    """

    pixels: NDArray[np.uint8]
    px_level0: float
    covered: NDArray[np.bool_] | None = None


def read_overview(
    reader: SlideReader,
    px_level0: float,
    coarsest_px_level0: float,
    limits: ReaderLimits,
    *,
    exact_px: int = EXACT_PX,
) -> Overview:
    """The slide at about `px_level0` level-0 pixels per pixel, reduced by area from the cheapest adequate level.

    Adequate is the coarsest level not coarser than `coarsest_px_level0`. Where it has more than `exact_px` pixels, the
    JPEG decoder does most of the reduction and tiles of obvious glass are skipped, if the reader can. Raises
    UnreadableSlide naming the damaged level-0 rectangle, and SlideTooLarge when reading that level would take too long.
    """
    index = max(
        (i for i, level in enumerate(reader.levels) if level.downsample <= max(1.0, coarsest_px_level0)),
        key=lambda i: reader.levels[i].downsample,
    )
    level = reader.levels[index]
    level_px = level.width * level.height
    factor = max(1, int(px_level0 / level.downsample), -(-max(level.width, level.height) // MAX_SIDE_PX))
    way = small_decode(reader, index, factor) if level_px > exact_px else None
    if way is not None:
        return Overview(decode_small(reader, way, limits.max_overview_px), way.factor * level.downsample)
    if level_px > limits.max_overview_px:
        raise SlideTooLarge(
            "The slide has no low-resolution level and is too large to be searched without one. Export it "
            "again as a pyramid, with smaller levels."
        )
    return _reduce(reader, index, factor)


def _reduce(reader: SlideReader, index: int, factor: int) -> Overview:
    level = reader.levels[index]
    height, width = -(-level.height // factor), -(-level.width // factor)
    picture = np.empty((height, width, 3), dtype=np.uint8)
    covered = np.ones((height, width), dtype=np.bool_)
    step = max(1, BLOCK_PX // factor)
    for top in range(0, height, step):
        for left in range(0, width, step):
            rows, columns = min(step, height - top), min(step, width - left)
            # The last pixels may reach beyond the slide: white there.
            x, y = left * factor, top * factor
            block, has_pixels = _read_block(reader, index, x, y, columns * factor, rows * factor)
            part = np.s_[top : top + rows, left : left + columns]
            picture[part] = cv2.resize(block, (columns, rows), interpolation=cv2.INTER_AREA)
            if has_pixels is not None:
                has_pixels[max(0, level.height - y) :] = True
                has_pixels[:, max(0, level.width - x) :] = True
                share = cv2.resize(has_pixels.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
                covered[part] = share >= 0.5
    return Overview(picture, factor * level.downsample, None if covered.all() else covered)


def _read_block(
    reader: SlideReader, index: int, x: int, y: int, width: int, height: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A block of a level, in that level's pixels, and where it has pixels; narrows a fault down before it raises."""
    downsample = reader.levels[index].downsample
    try:
        return reader.read_covered(round(x * downsample), round(y * downsample), index, width, height)
    except UnreadableSlide:
        if max(width, height) > SMALLEST_FAULT_PX:
            _read_quarters(reader, index, x, y, width, height)
        raise


def _read_quarters(reader: SlideReader, index: int, x: int, y: int, width: int, height: int) -> None:
    half_width, half_height = -(-width // 2), -(-height // 2)
    for top in range(y, y + height, half_height):
        for left in range(x, x + width, half_width):
            _read_block(reader, index, left, top, half_width, half_height)
