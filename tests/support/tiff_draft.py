"""Small TIFF slides laid out byte by byte, so that any field can be made to lie."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 2, 3, 4, 5, 7, 16
SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 254, 256, 257, 258, 259, 262, 270
SAMPLES, PLANAR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 277, 284, 322, 323, 324, 325
JPEG_TABLES, SUBSAMPLING = 347, 530
RGB, YCBCR = 2, 6
JPEG, DEFLATE = 7, 8
_CODES = {ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "I", UNDEFINED: "B", LONG8: "Q"}


@dataclass(frozen=True)
class Field:
    """One tag's value; a `count` that is given contradicts the number of values."""

    kind: int
    values: Sequence[int]
    count: int | None = None

    def packed(self, order: str) -> bytes:
        """In the byte order "<" or ">"."""
        return struct.pack(f"{order}{len(self.values)}{_CODES[self.kind]}", *self.values)


@dataclass(frozen=True)
class Directory:
    """A level: honest but for `move_offsets`, `move_counts`, and the tags that `says` replaces (None: leaves out)."""

    width_px: int
    height_px: int
    tile_px: int
    tiles: Sequence[bytes]
    photometric: int = YCBCR
    compression: int = JPEG
    tables: bytes = b""
    description: str = ""
    move_offsets: Callable[[list[int]], list[int]] = list
    move_counts: Callable[[list[int]], list[int]] = list
    says: Mapping[int, Field | None] = field(default_factory=dict)

    def fields(self, offsets: list[int]) -> dict[int, Field]:
        """Every tag, given where the tiles lie."""
        honest: dict[int, Field | None] = {
            SUBFILE_TYPE: Field(LONG, [0]),
            WIDTH: Field(LONG, [self.width_px]),
            HEIGHT: Field(LONG, [self.height_px]),
            BITS: Field(SHORT, [8, 8, 8]),
            COMPRESSION: Field(SHORT, [self.compression]),
            PHOTOMETRIC: Field(SHORT, [self.photometric]),
            DESCRIPTION: Field(ASCII, self.description.encode() + b"\0") if self.description else None,
            SAMPLES: Field(SHORT, [3]),
            PLANAR: Field(SHORT, [1]),
            TILE_WIDTH: Field(LONG, [self.tile_px]),
            TILE_HEIGHT: Field(LONG, [self.tile_px]),
            TILE_OFFSETS: Field(LONG8, self.move_offsets(offsets)),
            TILE_COUNTS: Field(LONG8, self.move_counts([len(tile) for tile in self.tiles])),
            JPEG_TABLES: Field(UNDEFINED, self.tables) if self.tables else None,
            SUBSAMPLING: Field(SHORT, [2, 2]) if self.photometric == YCBCR else None,
        }
        said = {**honest, **self.says}
        return {tag: value for tag, value in sorted(said.items()) if value is not None}


def write_tiff(
    directories: Sequence[Directory],
    *,
    big: bool = False,
    order: str = "<",
    next_offset: Callable[[list[int]], int] = lambda offsets: 0,
) -> bytes:
    """Header, then tiles and directory of each level; the last one points to `next_offset(directory offsets)`.

    Byte order "<" (little-endian) or ">"; `big` is BigTIFF.
    """
    file = _File(order, big)
    offsets = []
    for directory in directories:
        fields = directory.fields([file.append(tile) for tile in directory.tiles])
        offsets.append(file.append_directory(fields))
    file.point(next_offset(offsets))
    return bytes(file.data)


class _File:
    """The bytes so far, and where the pointer to the next directory lies."""

    def __init__(self, order: str, big: bool) -> None:
        self._order, self._big = order, big
        self._word = "Q" if big else "I"
        self._pointer = 8 if big else 4
        head = {"<": b"II", ">": b"MM"}[order]
        self.data = bytearray(head + self._packed("HHHQ", 43, 8, 0, 0) if big else head + self._packed("HI", 42, 0))

    def append(self, part: bytes) -> int:
        """Where it lies: at an even offset."""
        self.data += bytes(len(self.data) % 2)
        self.data += part
        return len(self.data) - len(part)

    def append_directory(self, fields: Mapping[int, Field]) -> int:
        """Appends it with its values behind it, points to it, and says where it lies."""
        head = self._packed("Q" if self._big else "H", len(fields))
        start = self.append(head)
        self.point(start)
        inline_bytes = struct.calcsize(self._word)
        entry_bytes = 4 + 2 * inline_bytes
        entries = start + len(head)
        self._pointer = entries + entry_bytes * len(fields)
        self.data += bytes(entry_bytes * len(fields) + inline_bytes)
        for index, (tag, given) in enumerate(fields.items()):
            value = given if self._big else _narrowed(given)
            packed = value.packed(self._order)
            if len(packed) > inline_bytes:
                packed = self._packed(self._word, self.append(packed))
            count = len(value.values) // (2 if value.kind == RATIONAL else 1) if value.count is None else value.count
            entry = self._packed("HH" + self._word, tag, value.kind, count) + packed.ljust(inline_bytes, b"\0")
            self.data[entries + index * entry_bytes : entries + (index + 1) * entry_bytes] = entry
        return start

    def point(self, offset: int) -> None:
        """The directory before, or the header, points there."""
        struct.pack_into(self._order + self._word, self.data, self._pointer, offset)

    def _packed(self, codes: str, *numbers: int) -> bytes:
        return struct.pack(self._order + codes, *numbers)


def _narrowed(value: Field) -> Field:
    """A classic TIFF has no 64-bit numbers."""
    if value.kind != LONG8:
        return value
    return Field(LONG, [number % 2**32 for number in value.values], value.count)
