"""The tiled images of a TIFF (classic or Big): how their pixels are stored and where each tile lies in the file.

Reads the directories once, bounded in every count: a chain, a table or a tile count that no slide has ends the
reading. It judges nothing else; `eligible_levels` does. Not tifffile: importing that takes a quarter of a second of
every reader process, and here are ten tags.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.slide_reader import cut_off

# Photometric interpretations.
RGB, YCBCR = 2, 6
# Slides have tens of directories; a longer chain is a loop.
_MAX_DIRECTORIES = 256
_MAX_ENTRIES = 1_024
# Over all images of a file; 400,000² px in tiles of 256 are 2.4 million and take 40 MB of offsets and counts.
MAX_TILES = 4_000_000
_MAX_TABLES_BYTES = 65_536

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_SAMPLES, _PLANAR, _EXTRA_SAMPLES = 277, 284, 338
_TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _BYTE_COUNTS, _JPEG_TABLES = 322, 323, 324, 325, 347
_FEW = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT)
_MAX_VALUES = {tag: 4 for tag in _FEW} | {_OFFSETS: MAX_TILES, _BYTE_COUNTS: MAX_TILES, _JPEG_TABLES: _MAX_TABLES_BYTES}
# One for each channel.
_MAX_VALUES |= {_BITS: 256, _EXTRA_SAMPLES: 256}
# TIFF field types that hold unsigned whole numbers or bytes: BYTE, SHORT, LONG, UNDEFINED, IFD, LONG8.
_DTYPES = {1: "u1", 3: "u2", 4: "u4", 7: "u1", 13: "u4", 16: "u8"}

_Tags = dict[int, NDArray[np.uint64]]


@dataclass(frozen=True)
class TiledImage:
    """One tiled image; `offsets` and `byte_counts` are [rows, columns], and every tile ends within the file. Where each
    channel has tiles of its own, they are the first channel's, and none where any channel has none.

    `bits` has one entry per sample. Numbers are TIFF's own: compression 7 is JPEG, photometric 2 RGB and 6 YCbCr.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    compression: int
    photometric: int
    bits: tuple[int, ...]
    samples: int
    is_interleaved: bool
    jpeg_tables: bytes
    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    orientation: int = 1
    extra_samples: tuple[int, ...] = ()


def read_tiled_images(file: int) -> tuple[TiledImage, ...]:
    """The tiled images of the open file `file`, in directory order.

    Raises NotEligible("unreadable_directory") or ("too_many_tiles"), and UnreadableSlide when a tile ends beyond the
    file: that upload was cut off, and OpenSlide would allocate whatever byte count the directory claims, or abort.
    """
    try:
        images = []
        tiles_left = MAX_TILES
        for tags in _Directories(file).walk():
            if _TILE_WIDTH in tags:
                images.append(_tiled_image(tags, os.fstat(file).st_size))
                tiles_left -= images[-1].offsets.size
            if tiles_left < 0:
                raise NotEligible("too_many_tiles")
        return tuple(images)
    except (struct.error, ValueError, KeyError, ArithmeticError, OSError, MemoryError):
        raise NotEligible("unreadable_directory") from None


class _Directories:
    """The chain of directories; every read is checked against the file's length."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._size = os.fstat(file).st_size
        start = self._read(0, 16)
        self._order = {b"II": "<", b"MM": ">"}[start[:2]]
        (version,) = struct.unpack_from(f"{self._order}H", start, 2)
        self._is_big = {42: False, 43: True}[version]
        (self._first,) = struct.unpack_from(f"{self._order}{'Q' if self._is_big else 'I'}", start, 4 + 4 * self._is_big)

    def walk(self) -> Iterator[_Tags]:
        seen = {0}
        at = self._first
        while at not in seen:
            seen.add(at)
            if len(seen) > _MAX_DIRECTORIES:
                raise ValueError("a chain that long is a loop")
            tags, at = self._directory(at)
            yield tags

    def _directory(self, at: int) -> tuple[_Tags, int]:
        count_code, entry_code, next_code = ("Q", "HHQ8s", "Q") if self._is_big else ("H", "HHI4s", "I")
        count_bytes, next_bytes = struct.calcsize(count_code), struct.calcsize(next_code)
        (count,) = struct.unpack(self._order + count_code, self._read(at, count_bytes))
        if count > _MAX_ENTRIES:
            raise ValueError("too many entries")
        entry_bytes = struct.calcsize(self._order + entry_code)
        table = self._read(at + count_bytes, count * entry_bytes + next_bytes)
        tags: _Tags = {}
        for tag, kind, length, value in struct.iter_unpack(self._order + entry_code, table[:-next_bytes]):
            if tag in _MAX_VALUES:
                if tag in tags:
                    raise ValueError("which of two equal tags counts is for OpenSlide to say")
                tags[tag] = self._values(tag, kind, length, value)
        (after,) = struct.unpack(self._order + next_code, table[-next_bytes:])
        return tags, after

    def _values(self, tag: int, kind: int, length: int, value: bytes) -> NDArray[np.uint64]:
        if length > _MAX_VALUES[tag]:
            raise NotEligible("too_many_tiles" if tag in (_OFFSETS, _BYTE_COUNTS) else "unreadable_directory")
        dtype = np.dtype(self._order + _DTYPES[kind])
        size = length * dtype.itemsize
        if size > len(value):
            (at,) = struct.unpack(f"{self._order}{'Q' if self._is_big else 'I'}", value)
            value = self._read(at, size)
        return np.frombuffer(value[:size], dtype).astype(np.uint64)

    def _read(self, at: int, size: int) -> bytes:
        if at + size > self._size:
            raise ValueError("beyond the end of the file")
        data = os.pread(self._file, size, at)
        if len(data) != size:
            raise ValueError("the file is shorter than it was")
        return data


def _tiled_image(tags: _Tags, file_bytes: int) -> TiledImage:
    width, height, tile_width, tile_height = (_one(tags, t) for t in (_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT))
    shape = -(-height // tile_height), -(-width // tile_width)
    offsets, byte_counts = tags[_OFFSETS], tags[_BYTE_COUNTS]
    if not _is_inside(offsets, byte_counts, file_bytes):
        raise cut_off()
    no_tables = np.zeros(0, dtype=np.uint64)
    samples = _one(tags, _SAMPLES, 1)
    is_interleaved = _one(tags, _PLANAR, 1) == 1
    planes = (1 if is_interleaved else max(1, samples), *shape)
    bits = tags.get(_BITS, np.ones(1, dtype=np.uint64))
    return TiledImage(
        width=width,
        height=height,
        tile_width=tile_width,
        tile_height=tile_height,
        compression=_one(tags, _COMPRESSION, 1),
        photometric=_one(tags, _PHOTOMETRIC),
        bits=tuple(bits.tolist()) if len(bits) == samples else (),
        samples=samples,
        is_interleaved=is_interleaved,
        jpeg_tables=tags.get(_JPEG_TABLES, no_tables).astype(np.uint8).tobytes(),
        offsets=offsets.astype(np.int64).reshape(planes)[0],
        byte_counts=byte_counts.astype(np.int64).reshape(planes).min(axis=0),
        orientation=_one(tags, _ORIENTATION, 1),
        extra_samples=tuple(tags.get(_EXTRA_SAMPLES, no_tables).tolist()),
    )


def _one(tags: _Tags, tag: int, default: int | None = None) -> int:
    if default is not None and tag not in tags:
        return default
    (value,) = tags[tag].tolist()
    return int(value)


def _is_inside(offsets: NDArray[np.uint64], byte_counts: NDArray[np.uint64], file_bytes: int) -> bool:
    """Compared unsigned and without a sum: a hostile offset near 2⁶⁴ must not wrap around."""
    return bool((byte_counts <= file_bytes).all() and (offsets <= file_bytes - byte_counts).all())
