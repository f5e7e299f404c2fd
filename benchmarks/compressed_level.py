"""The compressed tiles of a level as streams that a JPEG decoder takes as they are, and decoding them: LIMIT.

Nothing that reads this slide can be faster than decoding its tiles from memory, each once, into one buffer.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

from encoders.tiling.slide_readers.decode_buffer import decode_buffer

Rgb = NDArray[np.uint8]
# Row and column.
Place = tuple[int, int]
# Adobe's marker with transform 0: the components are RGB. Aperio's RGB streams have none, and decoders guess YCbCr.
_IS_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


class CompressedLevel:
    """One level's tiles by (row, column); every call reads the file."""

    def __init__(self, path: Path, width: int, height: int) -> None:
        self._path = path
        with tifffile.TiffFile(path) as tiff:
            page = next(page for page in tiled_pages(tiff) if page.shape[:2] == (height, width))
            assert page.tilewidth == page.tilelength, "scanners' tiles are square"
            assert page.jpegtables is not None, "scanners' tiles share their tables"
            self.tile_px = page.tilewidth
            self._columns = -(-width // page.tilewidth)
            self._where = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            self._head = page.jpegtables[:-2] + (_IS_RGB if page.photometric == tifffile.PHOTOMETRIC.RGB else b"")

    def stream(self, place: Place) -> bytes:
        """A complete JPEG stream of one tile."""
        offset, count = self._where[place[0] * self._columns + place[1]]
        with self._path.open("rb") as file:
            file.seek(offset)
            return self._head + file.read(count)[2:]

    def places(self, x: int, y: int, side: int) -> list[Place]:
        """The tiles under the square of `side` pixels from (x, y), in pixels of this level."""
        rows, columns = (range(edge // self.tile_px, -(-(edge + side) // self.tile_px)) for edge in (y, x))
        return [(row, column) for row in rows for column in columns]

    def region(self, x: int, y: int, side: int) -> Rgb:
        """RGB uint8 [side, side, 3], put together from decoded tiles: the proof that LIMIT decodes what it should."""
        left, top = x // self.tile_px * self.tile_px, y // self.tile_px * self.tile_px
        tiles_wide = -(-(x + side - left) // self.tile_px)
        tiles_high = -(-(y + side - top) // self.tile_px)
        whole = np.empty((tiles_high * self.tile_px, tiles_wide * self.tile_px, 3), dtype=np.uint8)
        for row, column in self.places(x, y, side):
            at_y, at_x = row * self.tile_px - top, column * self.tile_px - left
            whole[at_y : at_y + self.tile_px, at_x : at_x + self.tile_px] = simplejpeg.decode_jpeg(
                self.stream((row, column))
            )
        return whole[y - top : y - top + side, x - left : x - left + side]


def tiled_pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The levels, finest first: labels and thumbnails are in strips."""
    pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
    return sorted(pages, key=lambda page: -page.imagewidth)


def decode_all(streams: Iterable[bytes], tile_px: int) -> None:
    """Each into the same buffer."""
    buffer = decode_buffer(tile_px, tile_px, 3)
    for stream in streams:
        simplejpeg.decode_jpeg(stream, buffer=buffer)


def decode_all_halved(streams: Iterable[bytes], tile_px: int) -> None:
    """Each at half its size, reduced by the decoder."""
    side = tile_px // 2
    buffer = decode_buffer(side, side, 3)
    for stream in streams:
        simplejpeg.decode_jpeg(stream, min_height=side, min_width=side, buffer=buffer)
