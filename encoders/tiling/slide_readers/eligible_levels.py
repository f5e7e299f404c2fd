"""The levels of a slide that the fast reader may serve: those whose pixels are provably OpenSlide's own."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encoders.errors import UnreadableSlide
from encoders.tiling.slide_readers.jpeg_segments import MalformedJpeg
from encoders.tiling.slide_readers.jpeg_tiles import JpegTiles, UndecodableTile, check_format
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.tiff_levels import TiledImage

# The self-check decodes about this many pixels of tissue per level twice: some 10 ms, mostly OpenSlide's.
_CHECKED_PX = 3 * 256 * 256


@dataclass(frozen=True)
class FastLevel:
    """A level that is served fast; `downsample` is OpenSlide's own and whole."""

    image: TiledImage
    tiles: JpegTiles
    downsample: int


def match_levels(oracle: OpenSlideReader) -> tuple[TiledImage, ...]:
    """The file's tiled image behind each of OpenSlide's levels, found by its size and its tiles' size.

    Raises NotEligible when the slide is none of the two vendors', its directory cannot be read, or it is ambiguous.
    """
    return tuple(_only_match(oracle.tiled_images, oracle, level) for level in range(len(oracle.levels)))


def _only_match(images: tuple[TiledImage, ...], oracle: OpenSlideReader, level: int) -> TiledImage:
    size = oracle.levels[level].width, oracle.levels[level].height, oracle.tile_sizes[level]
    matches = [image for image in images if (image.width, image.height, (image.tile_width, image.tile_height)) == size]
    if len(matches) != 1:
        raise NotEligible("levels_do_not_match")
    return matches[0]


def fast_level(file: int, images: tuple[TiledImage, ...], oracle: OpenSlideReader, level: int) -> FastLevel:
    """That level, ready to be served; raises NotEligible saying why OpenSlide has to."""
    image = images[level]
    check_format(image)
    # Aperio: OpenSlide draws what lies over a missing tile of a finer level from that level's finer one.
    if any(not finer.byte_counts.all() for finer in images[: level + 1]):
        raise NotEligible("missing_tiles")
    downsample = oracle.painted_downsamples[level]
    if not downsample.is_integer() or downsample != oracle.levels[level].downsample:
        raise NotEligible("other_downsample")
    fast = FastLevel(image, JpegTiles(file, image), int(downsample))
    for column, row in _sampled_tiles(image):
        _check_tile(fast, oracle, level, column, row)
    return fast


def _sampled_tiles(image: TiledImage) -> list[tuple[int, int]]:
    """(column, row): the fullest tile of each third of the rows, which is tissue, and the lower right corner."""
    rows, columns = image.byte_counts.shape
    bands = max(1, min(3, rows, _CHECKED_PX // (image.tile_width * image.tile_height)))
    edges = [rows * band // bands for band in range(bands + 1)]
    sampled = [(columns - 1, rows - 1)]
    for first, last in pairwise(edges):
        row, column = divmod(int(image.byte_counts[first:last].argmax()), columns)
        sampled.append((column, first + row))
    return sampled


def _check_tile(fast: FastLevel, oracle: OpenSlideReader, level: int, column: int, row: int) -> None:
    image = fast.image
    ours = np.empty((image.tile_height, image.tile_width, 3), dtype=np.uint8)
    try:
        fast.tiles.decode_by_directory(column, row, ours)
        theirs = read_tile_by(oracle, fast, level, column, row)
    except (UndecodableTile, MalformedJpeg):
        raise NotEligible("other_jpeg") from None
    except UnreadableSlide:
        raise NotEligible("self_check_differs") from None
    height, width = image.height - row * image.tile_height, image.width - column * image.tile_width
    if not np.array_equal(ours[:height, :width], theirs[:height, :width]):
        raise NotEligible("self_check_differs")


def read_tile_by(oracle: OpenSlideReader, fast: FastLevel, level: int, column: int, row: int) -> NDArray[np.uint8]:
    """The rectangle of one JPEG tile as OpenSlide reads it; raises UnreadableSlide naming it."""
    width, height = fast.image.tile_width, fast.image.tile_height
    x, y = column * width * fast.downsample, row * height * fast.downsample
    return oracle.read_region(x, y, level, width, height)
