"""Decodes the JPEG tiles of one level straight from the file, giving the pixels that OpenSlide gives, or an error."""

import os
import struct
from functools import cache
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from encoders.tiling.slide_readers.color_conflict import ColorConflict, color_conflict
from encoders.tiling.slide_readers.jpeg_segments import (
    START,
    MalformedJpeg,
    dct_head,
    huffman_tables,
    only_tables,
    without_application_data,
)
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.stream_colors import jpeg_color
from encoders.tiling.slide_readers.tiff_levels import RGB, YCBCR, TiledImage

_JPEG = 7
_MAX_TILE_PX = 2_048
# A stream this much longer than its pixels is no compression but a trap.
_MAX_BYTES_PER_PIXEL = 12
# KeyError: samplings that simplejpeg has no name for.
_DECODER_ERRORS = (MalformedJpeg, ValueError, RuntimeError, MemoryError, KeyError)
_COLOR_SPACES = {"rgb": "RGB", "ycbcr": "YCbCr"}


class UndecodableTile(Exception):
    """Damaged, or not what the directory says: OpenSlide has the last word."""


def check_format(image: TiledImage) -> None:
    """Raises NotEligible for an image that is not stored in JPEG tiles of red, green and blue."""
    if image.compression != _JPEG:
        raise NotEligible("other_compression")
    if image.bits != (8, 8, 8) or not image.is_interleaved or image.photometric not in (RGB, YCBCR):
        raise NotEligible("other_pixel_format")
    if max(image.tile_width, image.tile_height) > _MAX_TILE_PX:
        raise NotEligible("other_tile_size")


class JpegTiles:
    """The tiles of `image` in the open file `file`. Safe to call from threads; the GIL is released while decoding.

    A tile that declares a colour space itself is decoded by that, whatever the directory says (see `stream_colors`).
    """

    def __init__(self, file: int, image: TiledImage) -> None:
        """Raises NotEligible("other_jpeg") for shared tables or byte counts that no slide has."""
        try:
            tables = only_tables(image.jpeg_tables, _own_tables()) if image.jpeg_tables else b""
        except MalformedJpeg:
            raise NotEligible("other_jpeg") from None
        if image.byte_counts.max() > image.tile_width * image.tile_height * _MAX_BYTES_PER_PIXEL:
            raise NotEligible("other_jpeg")
        self._file = file
        self._image = image
        self._color: Literal["rgb", "ycbcr"] = "ycbcr" if image.photometric == YCBCR else "rgb"
        self._heads = {color: START + tables + _adobe_marker(is_ycbcr=color == "ycbcr") for color in _COLOR_SPACES}
        self._head = self._heads[self._color]
        # Of tiles that are what the directory says.
        self._known_heads: tuple[bytes, ...] = ()

    def decode(self, column: int, row: int, factor: int, out: NDArray[np.uint8]) -> None:
        """Writes the tile's RGB, or RGBA if `out` has four channels, at 1/factor (1, 2, 4 or 8) a side.

        `out` is C-contiguous. Raises UndecodableTile, never allocates for a size that the directory does not have, and
        ColorConflict for a tile that must not be left to OpenSlide, which would decode it by the directory.
        """
        stream = self._stream(column, row)
        if not stream.startswith(self._known_heads, len(self._head)):
            own = self._own_color(stream)
            if own != self._color:
                self._decode_by(stream, own, factor, out)
                return
        self._decode(stream, factor, out)

    def decode_by_directory(self, column: int, row: int, out: NDArray[np.uint8]) -> None:
        """As OpenSlide does: what the tile says of its colours is left out."""
        stream = self._stream(column, row)
        try:
            is_foreign = self._own_color(stream) != self._color
        except ColorConflict:
            is_foreign = True
        if is_foreign:
            stream = self._head + without_application_data(stream, len(self._head))
        self._decode(stream, 1, out)

    def _own_color(self, stream: bytes) -> Literal["rgb", "ycbcr"]:
        """What the tile says, else the directory; takes note of the head if it is the directory's."""
        try:
            own = jpeg_color(stream, len(self._head))
            if own == "unclear":
                raise color_conflict()
            if own is None or own == self._color:
                self._known_heads = (self._checked_head(stream, self._color),)
                return self._color
        except _DECODER_ERRORS as error:
            raise UndecodableTile from error
        return own

    def _decode_by(self, stream: bytes, color: Literal["rgb", "ycbcr"], factor: int, out: NDArray[np.uint8]) -> None:
        """Rarely needed, so nothing of such tiles is kept."""
        stream = self._heads[color] + stream[len(self._head) :]
        try:
            self._checked_head(stream, color)
            self._decode(stream, factor, out)
        except (UndecodableTile, *_DECODER_ERRORS):
            raise color_conflict() from None

    def _decode(self, stream: bytes, factor: int, out: NDArray[np.uint8]) -> None:
        try:
            height, width = (0, 0) if factor == 1 else out.shape[:2]
            colors = "RGBA" if out.shape[2] == 4 else "RGB"
            pixels = simplejpeg.decode_jpeg(stream, colors, min_height=height, min_width=width, buffer=out)
        except _DECODER_ERRORS as error:
            raise UndecodableTile from error
        if pixels.shape != out.shape:
            raise UndecodableTile

    def _checked_head(self, stream: bytes, color: str) -> bytes:
        """A tile's own markers: what is known of them holds for every tile that begins alike."""
        head = dct_head(stream, len(self._head))
        image = self._image
        expected = (image.tile_height, image.tile_width, _COLOR_SPACES[color])
        if simplejpeg.decode_jpeg_header(stream)[:3] != expected:
            raise MalformedJpeg
        return head

    def _stream(self, column: int, row: int) -> bytes:
        image = self._image
        count = image.byte_counts.item(row, column)
        try:
            tile = os.pread(self._file, count, image.offsets.item(row, column))
        except OSError as error:
            raise UndecodableTile from error
        if len(tile) != count or not tile.startswith(START):
            raise UndecodableTile
        return b"".join((self._head, memoryview(tile)[2:]))


@cache
def _own_tables() -> frozenset[bytes]:
    """The Huffman tables that libjpeg-turbo takes where a stream has none: those that it writes (T.81, K.3).

    Most scanners write them too. A tile that is spared reading them is decoded 0.7 % sooner. Only baseline decoding has
    them: a progressive level that shares them fails the check on opening and stays with OpenSlide; none is known.
    """
    return huffman_tables(simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8)))


def _adobe_marker(*, is_ycbcr: bool) -> bytes:
    """APP14, which tells the decoder the colour space that OpenSlide takes from the directory.

    Aperio's streams have no marker of their own, and JPEG without one is guessed to be YCbCr.
    """
    return struct.pack(">HH5sHHHB", 0xFFEE, 14, b"Adobe", 100, 0, 0, int(is_ycbcr))
