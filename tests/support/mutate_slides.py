"""Damages a slide's bytes, reproducibly: in its directories, tables and tiles, or anywhere."""

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import hostile_jpeg as jpeg
import numpy as np
import tifffile

Span = tuple[int, int]
_WORDS = {2: "H", 4: "I", 8: "Q"}
_NUMBERS = (0, 1, 2, 7, 255, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Part:
    """Where bytes lie, and where their offset and count are written."""

    start: int
    size: int
    offset_at: Span
    count_at: Span

    @property
    def span(self) -> Span:
        """Its bytes."""
        return self.start, self.size


@dataclass(frozen=True)
class Tile(Part):
    """And which part of the slide it shows: a corner on level 0, a width of its own level's pixels."""

    level0_xy: tuple[int, int]
    side_px: int


@dataclass(frozen=True)
class Layout:
    """Where a TIFF's parts lie; spans are (start, bytes)."""

    byte_order: str
    entries: Sequence[Span]
    values: Sequence[Span]
    tables: Sequence[Part]
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Mutant:
    """A damaged slide, what was done to it, and where on level 0 to look for it, if it is known."""

    data: bytes
    note: str
    level0_xy: tuple[int, int] | None


class _Damage:
    """The slide while it is being damaged."""

    def __init__(self, data: bytes, layout: Layout, random: np.random.Generator) -> None:
        self.data = bytearray(data)
        self.layout = layout
        self.random = random
        self.level0_xy: tuple[int, int] | None = None

    def below(self, end: int) -> int:
        return int(self.random.integers(max(1, end)))

    def choose(self, spans: Sequence[Span]) -> Span:
        return spans[self.below(len(spans))]

    def tile(self) -> Tile:
        chosen = self.layout.tiles[self.below(len(self.layout.tiles))]
        self.level0_xy = chosen.level0_xy
        return chosen

    def table(self) -> Part:
        return self.layout.tables[self.below(len(self.layout.tables))]

    def stream(self, part: Part) -> bytes:
        return bytes(self.data[part.start : part.start + part.size])

    def flip(self, span: Span, bits: int) -> None:
        for _ in range(bits):
            self.data[span[0] + self.below(span[1])] ^= 1 << self.below(8)

    def scramble(self, span: Span, most: int) -> None:
        start = span[0] + self.below(span[1])
        size = min(1 + self.below(most), sum(span) - start)
        self.data[start : start + size] = self.random.bytes(size)

    def write(self, span: Span, number: int) -> None:
        code = self.layout.byte_order + _WORDS[span[1]]
        struct.pack_into(code, self.data, span[0], number % 256 ** span[1])

    def read(self, span: Span) -> int:
        code = self.layout.byte_order + _WORDS[span[1]]
        return int(struct.unpack_from(code, self.data, span[0])[0])

    def number_near(self, number: int) -> int:
        near = (number + 1, number - 1, number * 2, number // 2, number + self.below(256), number - self.below(256))
        choices = [*near, *_NUMBERS, self.below(len(self.data))]
        return choices[self.below(len(choices))]

    def replace(self, part: Part, stream: bytes) -> None:
        """Puts the stream at the end of the file, where there is room for it."""
        self.write(part.offset_at, len(self.data))
        self.write(part.count_at, len(stream))
        self.data += stream


Mutation = Callable[[_Damage], None]


def layout_of(data: bytes) -> Layout:
    """Of an intact file; nothing but its bytes when it is no TIFF."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return _tiff_layout(file)
    except tifffile.TiffFileError:
        return Layout("<", (), (), (), ())


def mutate(data: bytes, layout: Layout, seed: Sequence[int]) -> Mutant:
    """One damaged copy; the same seed gives the same."""
    damage = _Damage(data, layout, np.random.default_rng(seed))
    kinds = [kind for kind, needs in _MUTATIONS.items() if needs is None or getattr(layout, needs)]
    done = []
    for _ in range(1 + (damage.below(10) >= 8)):
        kind = kinds[damage.below(len(kinds))]
        kind(damage)
        done.append(kind.__name__.strip("_"))
        if kind in (_cut_off, _splice):  # from here on nothing lies where the layout says
            break
    return Mutant(bytes(damage.data), " + ".join(done), damage.level0_xy)


def _tiff_layout(file: tifffile.TiffFile) -> Layout:
    entries, values = [], []
    tables: list[Part] = []
    tiles: list[Tile] = []
    entry_bytes = 20 if file.is_bigtiff else 12
    pages = [page for page in file.pages if isinstance(page, tifffile.TiffPage)]
    for page in pages:
        for tag in page.tags.values():
            entries.append((tag.offset, entry_bytes))
            if not tag.offset < tag.valueoffset < tag.offset + entry_bytes:
                values.append((tag.valueoffset, tag.valuebytecount))
            if tag.code == 347:
                word = 8 if file.is_bigtiff else 4
                at = tag.offset + 4
                tables.append(Part(tag.valueoffset, tag.valuebytecount, (at + word, word), (at, word)))
        if page.is_tiled:
            tiles += _tiles_of(page, pages[0].imagewidth / page.imagewidth)
    return Layout(file.byteorder, entries, values, tables, tiles)


def _tiles_of(page: tifffile.TiffPage, downsample: float) -> list[Tile]:
    offsets, counts = page.tags[324], page.tags[325]
    columns = -(-page.imagewidth // page.tilewidth)
    tiles = []
    for index, (start, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        x, y = index % columns * page.tilewidth, index // columns * page.tilelength
        corner = (round(x * downsample), round(y * downsample))
        tiles.append(Tile(start, size, _item(offsets, index), _item(counts, index), corner, page.tilewidth))
    return tiles


def _item(tag: tifffile.TiffTag, index: int) -> Span:
    size = tag.valuebytecount // tag.count
    return tag.valueoffset + index * size, size


def _flip_bits_anywhere(damage: _Damage) -> None:
    damage.flip((0, len(damage.data)), 1 + damage.below(16))


def _scramble_anywhere(damage: _Damage) -> None:
    damage.scramble((0, len(damage.data)), 64)


def _cut_off(damage: _Damage) -> None:
    del damage.data[damage.below(len(damage.data)) :]


def _splice(damage: _Damage) -> None:
    """A piece of the file, written over another, put between, or taken out."""
    size = 1 + damage.below(512)
    source, target = damage.below(len(damage.data)), damage.below(len(damage.data))
    piece = damage.data[source : source + size]
    end = (target, target + size)[damage.below(2)]
    damage.data[target:end] = (piece, b"")[damage.below(3) == 0]


def _flip_bits_of_an_entry(damage: _Damage) -> None:
    damage.flip(damage.choose(damage.layout.entries), 1 + damage.below(3))


def _change_an_entrys_value(damage: _Damage) -> None:
    start, size = damage.choose(damage.layout.entries)
    span = (start + size - (8 if size == 20 else 4), 8 if size == 20 else 4)
    damage.write(span, damage.number_near(damage.read(span)))


def _change_an_entrys_kind_or_tag(damage: _Damage) -> None:
    start, _ = damage.choose(damage.layout.entries)
    span = (start + 2 * damage.below(2), 2)
    damage.write(span, damage.number_near(damage.read(span)))


def _change_an_entrys_count(damage: _Damage) -> None:
    start, size = damage.choose(damage.layout.entries)
    span = (start + 4, 8 if size == 20 else 4)
    damage.write(span, damage.number_near(damage.read(span)))


def _scramble_values(damage: _Damage) -> None:
    damage.scramble(damage.choose(damage.layout.values), 16)


def _flip_bits_of_tables(damage: _Damage) -> None:
    damage.flip(damage.table().span, 1 + damage.below(4))


def _scramble_tables(damage: _Damage) -> None:
    damage.scramble(damage.table().span, 32)


def _insert_a_marker_into_tables(damage: _Damage) -> None:
    table = damage.table()
    damage.replace(table, jpeg.with_segments(damage.stream(table), _marker(damage)))


def _flip_bits_of_a_tile(damage: _Damage) -> None:
    tile = damage.tile()
    damage.flip(tile.span, 1 + damage.below(8))


def _flip_bits_of_a_tiles_head(damage: _Damage) -> None:
    tile = damage.tile()
    damage.flip((tile.start, min(tile.size, 48)), 1 + damage.below(3))


def _scramble_a_tile(damage: _Damage) -> None:
    tile = damage.tile()
    damage.scramble(tile.span, 64)


def _zero_a_tiles_tail(damage: _Damage) -> None:
    tile = damage.tile()
    tail = 1 + damage.below(tile.size)
    damage.data[tile.start + tile.size - tail : tile.start + tile.size] = bytes(tail)


def _move_a_tile(damage: _Damage) -> None:
    tile = damage.tile()
    damage.write(tile.offset_at, damage.number_near(tile.start))


def _give_a_tile_anothers_place(damage: _Damage) -> None:
    other, tile = damage.tile(), damage.tile()
    damage.write(tile.offset_at, other.start)
    damage.write(tile.count_at, (other.size, tile.size)[damage.below(2)])


def _recount_a_tile(damage: _Damage) -> None:
    tile = damage.tile()
    damage.write(tile.count_at, damage.number_near(tile.size))


def _insert_a_marker(damage: _Damage) -> None:
    tile = damage.tile()
    damage.replace(tile, jpeg.with_segments(damage.stream(tile), _marker(damage)))


def _marker(damage: _Damage) -> jpeg.Segment:
    """What one decoder may believe and another not: colour, restarts, comments, further tables."""
    parts = [
        jpeg.adobe(damage.below(3)),
        (0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        (jpeg.DRI, damage.below(8).to_bytes(2)),
        (jpeg.COM, damage.random.bytes(damage.below(99))),
        (jpeg.DQT, bytes([damage.below(4)]) + bytes([1 + damage.below(99)]) * 64),
        (jpeg.DHT, bytes([damage.below(2) * 16 + damage.below(2), 0, 2, *[0] * 14, 1, 2])),
        (0xE0 + damage.below(16), damage.random.bytes(damage.below(40))),
    ]
    return parts[damage.below(len(parts))]


def _encode_a_tile_anew(damage: _Damage) -> None:
    """A valid stream, but of another kind than the slide's."""
    tile = damage.tile()
    pixels = damage.random.integers(0, 256, (tile.side_px, tile.side_px, 3), dtype=np.uint8)
    encode = jpeg.KINDS[damage.below(len(jpeg.KINDS))]
    damage.replace(tile, encode(np.asarray(cv2.blur(pixels, (5, 5)), dtype=np.uint8)))


def _resample_a_tile(damage: _Damage) -> None:
    """Claims another sampling of one component."""
    tile = damage.tile()
    sampling = (1 + damage.below(4)) * 16 + 1 + damage.below(4)
    try:
        damage.replace(tile, jpeg.resampled(damage.stream(tile), damage.below(3), sampling))
    except (struct.error, IndexError):
        damage.scramble(tile.span, 8)


def _reshape_a_tile(damage: _Damage) -> None:
    tile = damage.tile()
    sides = (0, 1, 8, 16, 63, 64, 65, 128, 240, 256, 65_500)
    width, height = sides[damage.below(len(sides))], sides[damage.below(len(sides))]
    try:
        damage.replace(tile, jpeg.with_size(damage.stream(tile), width, height))
    except struct.error:  # no JPEG stream, or one that was damaged before
        damage.scramble(tile.span, 8)


def _renumber_a_tiles_components(damage: _Damage) -> None:
    """Decoders guess a colour space from the components' numbers."""
    tile = damage.tile()
    numbers = (b"RGB", b"\0\1\2", b"\1\2\3", b"CMY", b"\1\1\1")[damage.below(5)]
    try:
        damage.replace(tile, jpeg.renumbered(damage.stream(tile), numbers))
    except (struct.error, IndexError):
        damage.scramble(tile.span, 8)


def _append_to_a_tile(damage: _Damage) -> None:
    tile = damage.tile()
    stream = damage.stream(tile)
    tails = (bytes(9), damage.random.bytes(9), stream, jpeg.EOI, b"\xff" * 9)
    damage.replace(tile, stream + tails[damage.below(len(tails))])


def _drop_a_tiles_end(damage: _Damage) -> None:
    tile = damage.tile()
    damage.replace(tile, damage.stream(tile)[: -1 - damage.below(4)])


# A mutation and what it needs of the layout.
_MUTATIONS: dict[Mutation, str | None] = {
    _flip_bits_anywhere: None,
    _scramble_anywhere: None,
    _cut_off: None,
    _splice: None,
    _flip_bits_of_an_entry: "entries",
    _change_an_entrys_value: "entries",
    _change_an_entrys_kind_or_tag: "entries",
    _change_an_entrys_count: "entries",
    _scramble_values: "values",
    _flip_bits_of_tables: "tables",
    _scramble_tables: "tables",
    _insert_a_marker_into_tables: "tables",
    _flip_bits_of_a_tile: "tiles",
    _flip_bits_of_a_tiles_head: "tiles",
    _scramble_a_tile: "tiles",
    _zero_a_tiles_tail: "tiles",
    _move_a_tile: "tiles",
    _give_a_tile_anothers_place: "tiles",
    _recount_a_tile: "tiles",
    _insert_a_marker: "tiles",
    _encode_a_tile_anew: "tiles",
    _resample_a_tile: "tiles",
    _reshape_a_tile: "tiles",
    _renumber_a_tiles_components: "tiles",
    _append_to_a_tile: "tiles",
    _drop_a_tiles_end: "tiles",
}
