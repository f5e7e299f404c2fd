"""A picture of a level that is much larger than the picture: the JPEG decoder reduces, and glass is hardly decoded."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.errors import SlideTooLarge
from encoders.tiling.slide_readers.slide_reader import Scale, SlideReader
from encoders.tiling.tissue.glass_tiles import find_glass_tiles

# Small enough to lie wholly on glass often, large enough to cost little beside its tiles.
_BLOCK_PX = 1_024
# Decoding at 1/8 takes about a tenth of the time that OpenSlide takes to paint the same pixels.
PAINTED_TO_DECODED = 8
# Of a glass block four of about sixteen tiles are decoded.
_GLASS_COST = 0.25
# Glass varies by less from one tile to the next (of 255).
_SAME_COLOUR = 4.0
_REDUCTIONS = (8, 4, 2)


@dataclass(frozen=True)
class Block:
    """Pixels `top … top + rows`, `left … left + columns` of the picture."""

    left: int
    top: int
    columns: int
    rows: int


@dataclass(frozen=True)
class SmallDecode:
    """How to get a level at 1/`factor`: the decoder reduces by `reduction`, an area mean does the rest.

    `glass` is bool [rows, columns] of the level's tiles of `tile_size` (width, height).
    """

    level: int
    factor: int
    reduction: int
    tile_size: tuple[int, int]
    glass: NDArray[np.bool_]

    def shows_only_glass(self, block: Block) -> bool:
        """Whether every tile that the block touches, and every neighbour of these, is glass."""
        left, top, right, bottom = self._tiles(block)
        return bool(self.glass[max(0, top - 1) : bottom + 2, max(0, left - 1) : right + 2].all())

    def corner_tiles(self, block: Block) -> set[tuple[int, int]]:
        """(column, row) of the tiles at the block's corners."""
        left, top, right, bottom = self._tiles(block)
        return {(column, row) for column in (left, right) for row in (top, bottom)}

    def _tiles(self, block: Block) -> tuple[int, int, int, int]:
        """The first and the last column and row of tiles under the block: left, top, right, bottom."""
        (width, height), (rows, columns) = self.tile_size, self.glass.shape
        right = ((block.left + block.columns) * self.factor - 1) // width
        bottom = ((block.top + block.rows) * self.factor - 1) // height
        left, top = block.left * self.factor // width, block.top * self.factor // height
        # The picture's last pixels may reach beyond the slide.
        return left, top, min(right, columns - 1), min(bottom, rows - 1)


def small_decode(reader: SlideReader, level: int, factor: int) -> SmallDecode | None:
    """The way to this level at about 1/`factor`, never coarser; None when this reader's decoder cannot reduce it."""
    tile_bytes, tile_size = reader.tile_bytes(level), reader.tile_sizes[level]
    if tile_bytes is None or tile_size is None:
        return None
    reduction = next((by for by in _REDUCTIONS if by <= factor and not tile_size[0] % by and not tile_size[1] % by), 1)
    if reduction == 1:
        return None
    return SmallDecode(level, factor // reduction * reduction, reduction, tile_size, find_glass_tiles(tile_bytes))


def decode_small(reader: SlideReader, way: SmallDecode, max_painted_px: int) -> NDArray[np.uint8]:
    """RGB uint8 [ceil(height / factor), ceil(width / factor), 3]; white beyond the slide.

    A block of nothing but glass gets the mean colour of the tiles at its corners, if these agree. Raises
    UnreadableSlide naming the damaged level-0 rectangle, and SlideTooLarge when decoding would take longer than
    painting `max_painted_px`.
    """
    level = reader.levels[way.level]
    height, width = -(-level.height // way.factor), -(-level.width // way.factor)
    blocks = list(_blocks(width, height, max(1, _BLOCK_PX // way.factor)))
    is_glass = [way.shows_only_glass(block) for block in blocks]
    costs = (b.columns * b.rows * (_GLASS_COST if glass else 1) for b, glass in zip(blocks, is_glass, strict=True))
    if sum(costs) * way.factor**2 > max_painted_px * PAINTED_TO_DECODED:
        raise SlideTooLarge(
            "The slide has no low-resolution level and is too large to be searched without one. Export it "
            "again as a pyramid, with smaller levels."
        )
    picture = np.empty((height, width, 3), dtype=np.uint8)
    for block, glass in zip(blocks, is_glass, strict=True):
        colour = _colour_of_glass(reader, way, block) if glass else None
        part = picture[block.top : block.top + block.rows, block.left : block.left + block.columns]
        part[...] = _decoded(reader, way, block) if colour is None else colour
    return picture


def _blocks(width: int, height: int, step: int) -> Iterator[Block]:
    for top in range(0, height, step):
        for left in range(0, width, step):
            yield Block(left, top, min(step, width - left), min(step, height - top))


def _decoded(reader: SlideReader, way: SmallDecode, block: Block) -> NDArray[np.uint8]:
    x, y = block.left * way.factor, block.top * way.factor
    pixels = _read(reader, way, (x, y), (block.columns * way.factor, block.rows * way.factor))
    return np.asarray(cv2.resize(pixels, (block.columns, block.rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _colour_of_glass(reader: SlideReader, way: SmallDecode, block: Block) -> NDArray[np.uint8] | None:
    """RGB [3] of the tiles at the block's corners, whatever they show; None when they differ.

    A small tile may be ink, the scan's frame or a gap in it, which scanners fill tile by tile.
    """
    means = np.stack([_mean_colour(reader, way, *tile) for tile in sorted(way.corner_tiles(block))])
    if np.ptp(means, axis=0).max() > _SAME_COLOUR:
        return None
    return np.asarray(np.round(means.mean(axis=0)), dtype=np.uint8)


def _mean_colour(reader: SlideReader, way: SmallDecode, column: int, row: int) -> NDArray[np.float64]:
    level, (width, height) = reader.levels[way.level], way.tile_size
    x, y = column * width, row * height
    pixels = _read(reader, way, (x, y), (min(width, level.width - x), min(height, level.height - y)))
    return np.asarray(pixels.mean(axis=(0, 1)))


def _read(reader: SlideReader, way: SmallDecode, corner: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A region, given in the level's pixels, at 1/`reduction`."""
    x, y = (round(at * reader.levels[way.level].downsample) for at in corner)
    return reader.read_reduced(x, y, way.level, *size, Scale(way.reduction, "dct"))
