"""Slides of a hundred gigabytes decoded that take a few megabytes on disk: the same tiles stand in many places.

A BigTIFF says where each tile lies, and nothing forbids that many say the same. A square of drawn tissue of 4,096 px
repeats over the whole slide; at levels 1/4, 1/16 and 1/64 it is 1,024, 256 and 64 px, so that every level has its own
few tiles. Seams at its edges are seen, and cost nothing.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.jpeg_streams import encode_tile
from benchmarks.slide_recipes import Coding
from benchmarks.tissue_torus import draw_tissue_torus

SQUARE_PX: Final = 4_096
MPP: Final = 0.25
_TILE_PX: Final = 256
_CODING: Final = Coding(quality=85, is_rgb=False)
_LEVELS: Final = (1, 4, 16, 64)
# TIFF 6.0 and the BigTIFF design: types of fields and their numbers.
_ASCII, _SHORT, _LONG, _UNDEFINED, _LONG8 = 2, 3, 4, 7, 16
_FORMATS: Final = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}


@dataclass(frozen=True)
class Field:
    """One entry of a directory."""

    tag: int
    kind: int
    values: bytes | tuple[int, ...] | NDArray[np.generic]

    @property
    def count(self) -> int:
        """Values, not bytes."""
        return len(self.values)

    def packed(self) -> bytes:
        """The values, little-endian."""
        if isinstance(self.values, bytes):
            return self.values
        if isinstance(self.values, np.ndarray):
            return self.values.astype(f"<{'u8' if self.kind == _LONG8 else 'u4'}").tobytes()
        return struct.pack(f"<{len(self.values)}{_FORMATS[self.kind]}", *self.values)


def decoded_gb(side_px: int) -> float:
    """Of level 0 as RGB, in 10^9 bytes."""
    return side_px * side_px * 3 / 1e9


def write_repeated_slide(path: Path, side_px: int) -> None:
    """Writes an Aperio slide, square, of tissue throughout; `side_px` is a multiple of `SQUARE_PX`. It appears at
    `path` when it is whole."""
    assert side_px % SQUARE_PX == 0, "level 1/64 has whole pixels then"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
            square = draw_tissue_torus(0, _TILE_PX).pixels[:SQUARE_PX, :SQUARE_PX]
            link = 8
            for downsample in _LEVELS:
                level = cv2.resize(square, None, fx=1 / downsample, fy=1 / downsample, interpolation=cv2.INTER_AREA)
                link = _write_level(file, np.asarray(level, np.uint8), side_px, downsample, link)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_level(file: BinaryIO, square: NDArray[np.uint8], side_px: int, downsample: int, link: int) -> int:
    """Tiles, then the directory, whose place is written at `link`; the place of the next directory's link."""
    # Of the coarsest level one tile holds several squares.
    repeats = max(1, _TILE_PX // len(square))
    square = np.tile(square, (repeats, repeats, 1))
    across = len(square) // _TILE_PX
    offsets, sizes = np.empty((across, across), np.uint64), np.empty((across, across), np.uint32)
    tables = b""
    for row, column in np.ndindex(across, across):
        top, left = row * _TILE_PX, column * _TILE_PX
        split = encode_tile(square[top : top + _TILE_PX, left : left + _TILE_PX], _CODING)
        tables = split.tables
        offsets[row, column], sizes[row, column] = file.tell(), len(split.tile)
        file.write(split.tile)
    level_px = side_px // downsample
    grid = -(-level_px // _TILE_PX)
    rows = np.arange(grid) % across
    fields = _fields(level_px, side_px, tables, offsets[np.ix_(rows, rows)].ravel(), sizes[np.ix_(rows, rows)].ravel())
    return _write_directory(file, fields, link)


def _fields(
    level_px: int, side_px: int, tables: bytes, offsets: NDArray[np.generic], sizes: NDArray[np.generic]
) -> list[Field]:
    scaled = "" if level_px == side_px else f" -> {level_px}x{level_px}"
    description = (
        f"Aperio Image Library v12.0.0\r\n{side_px}x{side_px} [0,0 {side_px}x{side_px}] "
        f"({_TILE_PX}x{_TILE_PX}){scaled} JPEG/YCC Q={_CODING.quality}|AppMag = 40|MPP = {MPP:g}\0"
    )
    return [
        Field(254, _LONG, (0 if level_px == side_px else 1,)),  # NewSubfileType: a coarser level
        Field(256, _LONG, (level_px,)),
        Field(257, _LONG, (level_px,)),
        Field(258, _SHORT, (8, 8, 8)),
        Field(259, _SHORT, (7,)),  # JPEG
        Field(262, _SHORT, (6,)),  # YCbCr
        Field(270, _ASCII, description.encode()),
        Field(277, _SHORT, (3,)),
        Field(284, _SHORT, (1,)),  # PlanarConfiguration: together
        Field(322, _LONG, (_TILE_PX,)),
        Field(323, _LONG, (_TILE_PX,)),
        Field(324, _LONG8, offsets),
        Field(325, _LONG, sizes),
        Field(347, _UNDEFINED, tables),
        Field(530, _SHORT, (2, 2)),  # YCbCrSubSampling
    ]


def _write_directory(file: BinaryIO, fields: Sequence[Field], link: int) -> int:
    places = []
    for each in fields:
        packed = each.packed()
        if len(packed) > 8:
            file.write(b"\0" * (-file.tell() % 8))
            places.append(struct.pack("<Q", file.tell()))
            file.write(packed)
        else:
            places.append(packed.ljust(8, b"\0"))
    file.write(b"\0" * (-file.tell() % 8))
    begins = file.tell()
    file.write(struct.pack("<Q", len(fields)))
    for each, place in zip(fields, places, strict=True):
        file.write(struct.pack("<HHQ", each.tag, each.kind, each.count) + place)
    next_link = file.tell()
    file.write(struct.pack("<Q", 0))
    file.seek(link)
    file.write(struct.pack("<Q", begins))
    file.seek(0, os.SEEK_END)
    return next_link
