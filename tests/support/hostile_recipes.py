"""Every hostile file that a test names, and the outcome that it must have. All drawn in code."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import hostile_jpeg as jpeg
import hostile_slides as slides
import numpy as np
import tiff_draft as tiff
from hostile_slides import one_tile, says, single_tile, spoiled
from numpy.typing import NDArray
from tiff_draft import Directory, Field, write_tiff


@dataclass(frozen=True)
class Recipe:
    """A file, and the one right end of encoding it: the code of a SlideError, or "tiles" where it can be read."""

    name: str
    make: Callable[[], bytes]
    code: str


def recipes() -> list[Recipe]:
    """All of them; nothing is drawn before `make` is called."""
    return [*_in_a_tile(), *_offsets_and_counts(), *_claims(), *_directories(), *_bombs(), *_cut()]


def _in_a_tile() -> list[Recipe]:
    bad = "unreadable_slide"
    return [
        Recipe("a zeroed tail", one_tile(lambda tile: tile[: len(tile) // 2] + bytes(len(tile) - len(tile) // 2)), bad),
        Recipe("random bytes", one_tile(lambda tile: np.random.default_rng(3).bytes(len(tile))), bad),
        Recipe("a stream cut off", one_tile(lambda tile: tile[: len(tile) // 2]), bad),
        Recipe("a stream of two bytes", one_tile(lambda tile: tile[:2]), bad),
        Recipe("a frame of 65,500 px", one_tile(lambda tile: jpeg.with_size(tile, 65_500, 65_500)), bad),
        Recipe("a frame larger than the tile", one_tile(lambda tile: jpeg.with_size(tile, 128, 128)), bad),
        Recipe("a frame smaller than the tile", one_tile(lambda tile: jpeg.with_size(tile, 32, 32)), bad),
        Recipe("a frame of another shape", one_tile(lambda tile: jpeg.with_size(tile, 128, 32)), bad),
        Recipe("a frame without height", one_tile(lambda tile: jpeg.with_size(tile, 64, 0)), bad),
        Recipe("a grey tile", one_tile(lambda tile: jpeg.encode_grey(_pink())), bad),
        Recipe("a lossless tile", one_tile(lambda tile: jpeg.encode_lossless(_pink())), bad),
        Recipe("a level of lossless tiles", spoiled(lambda _: _lossless_level(), 1), "tiles"),
        Recipe("a lossless tile of 2,048 px", large_lossless_tile, "tiles"),
        Recipe("a tile sampled 4:4:1", one_tile(lambda tile: jpeg.resampled(tile, 0, 0x14)), "tiles"),
        Recipe("a picture in PNG", one_tile(lambda tile: b"\x89PNG\r\n\x1a\n" + tile), bad),
        Recipe("64 MB of comments", one_tile(lambda tile: jpeg.with_segments(tile, *_comments(1_000))), "tiles"),
        Recipe(
            "20,000 Huffman tables", one_tile(lambda tile: jpeg.with_segments(tile, *_tables(tile, 20_000))), "tiles"
        ),
        Recipe(
            "a Huffman table of 60 kB", one_tile(lambda tile: jpeg.with_segments(tile, (jpeg.DHT, bytes(60_000)))), bad
        ),
        Recipe(
            "16 bits a sample", one_tile(lambda tile: tile.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x10")), bad
        ),
        Recipe("no Huffman tables", one_tile(lambda tile: jpeg.without(tile, jpeg.DHT)), "tiles"),
        Recipe("no quantisation tables", one_tile(lambda tile: jpeg.without(tile, jpeg.DQT)), bad),
        Recipe(
            "a restart interval without restarts",
            one_tile(lambda tile: jpeg.with_segments(tile, (jpeg.DRI, b"\0\2"))),
            bad,
        ),
    ]


def _pink() -> NDArray[np.uint8]:
    return slides.picture(320, 256)[64:128, 128:192].copy()


def _lossless_level() -> Directory:
    """A decoder that is to reduce it writes all of it, beyond its buffer's end."""
    return slides.level(160, 128, encode=partial(jpeg.encode_lossless, is_rgb=True), is_rgb=True)


def large_lossless_tile() -> bytes:
    """The same with so many bytes beyond the end that no decoder survives it."""
    pixels = np.tile(slides.picture(512, 512), (4, 4, 1))
    return single_tile((2_048, 2_048), 2_048, jpeg.encode_lossless(pixels, is_rgb=True), photometric=tiff.RGB)


def _comments(count: int) -> list[jpeg.Segment]:
    return [(jpeg.COM, bytes(65_000))] * count


def _tables(tile: bytes, count: int) -> list[jpeg.Segment]:
    segments, _ = jpeg.split(tile)
    return [part for part in segments if part[0] == jpeg.DHT] * (count // 4)


def _offsets_and_counts() -> list[Recipe]:
    bad = "unreadable_slide"

    def offset(value: int) -> Callable[[], bytes]:
        return spoiled(lambda one: replace(one, move_offsets=lambda offsets: _set(offsets, 7, value)))

    def count(value: int) -> Callable[[], bytes]:
        return spoiled(lambda one: replace(one, move_counts=lambda counts: _set(counts, 7, value)))

    def all_offsets(move: Callable[[list[int]], list[int]]) -> Callable[[], bytes]:
        return spoiled(lambda one: replace(one, move_offsets=move))

    return [
        Recipe("an offset past the end", offset(2**31), bad),
        Recipe("an offset at the end", offset(2**32 - 1), bad),
        Recipe("an offset at the header", offset(0), bad),
        Recipe("an offset one byte late", all_offsets(lambda offsets: _set(offsets, 7, offsets[7] + 1)), bad),
        Recipe("one tile for all", all_offsets(lambda offsets: [offsets[0]] * len(offsets)), "no_tissue"),
        Recipe("a byte count of one", count(1), bad),
        Recipe("a huge byte count", count(2**32 - 1), bad),
        Recipe("a byte count over all that follows", count(20_000), "tiles"),
        Recipe("fewer offsets than tiles", all_offsets(lambda offsets: offsets[:5]), bad),
        Recipe("more offsets than tiles", all_offsets(lambda offsets: offsets * 100), "tiles"),
        Recipe("offsets of 2^60", lambda: write_tiff(_moved(2**60), big=True), bad),
        Recipe("offsets of 2^64 - 1", lambda: write_tiff(_moved(2**64 - 1), big=True), bad),
        Recipe("byte counts of 2^60", lambda: write_tiff(_counted(2**60), big=True), bad),
    ]


def _set(values: list[int], index: int, value: int) -> list[int]:
    return [*values[:index], value, *values[index + 1 :]]


def _moved(offset: int) -> list[Directory]:
    return [replace(one, move_offsets=lambda offsets: [offset] * len(offsets)) for one in slides.two_levels()]


def _counted(count: int) -> list[Directory]:
    return [replace(one, move_counts=lambda counts: [count] * len(counts)) for one in slides.two_levels()]


def _claims() -> list[Recipe]:
    bad, large = "unreadable_slide", "slide_too_large"
    side = 2_000_000

    def size(width_px: int, height_px: int) -> Callable[[Directory], Directory]:
        return lambda one: replace(one, width_px=width_px, height_px=height_px)

    return [
        Recipe("2,000,000 px a side and 20 tiles", spoiled(size(side, side)), bad),
        Recipe("2,000,000 px a side in one tile", lambda: single_tile((side, side), side, _tile()), large),
        Recipe("2,000,000 px wide", spoiled(size(side, 64)), large),
        Recipe("300,000 px a side and 20 tiles", spoiled(size(300_000, 300_000)), bad),
        Recipe("one pixel wide", lambda: single_tile((1, 64), 64, _tile()), "no_tissue"),
        Recipe("one pixel high", lambda: single_tile((64, 1), 64, _tile()), "no_tissue"),
        Recipe("no pixel wide", lambda: single_tile((0, 64), 64, _tile()), bad),
        Recipe("tiles of no width", spoiled(says(tiff.TILE_WIDTH, tiff.LONG, 0)), bad),
        Recipe("tiles of 2^31 px", spoiled(says(tiff.TILE_WIDTH, tiff.LONG, 2**31)), large),
        Recipe("a level larger than level 0", spoiled(lambda _: slides.level(640, 512), 1), "unsupported_format"),
        Recipe("a level of another shape", spoiled(lambda _: slides.level(320, 64), 1), "tiles"),
        Recipe("another compression", spoiled(says(tiff.COMPRESSION, tiff.SHORT, 52_479)), "unsupported_format"),
        Recipe("JPEG said to be deflate", spoiled(says(tiff.COMPRESSION, tiff.SHORT, tiff.DEFLATE)), bad),
        Recipe("JPEG said to be uncompressed", spoiled(says(tiff.COMPRESSION, tiff.SHORT, 1)), "tiles"),
        Recipe("YCbCr said to be RGB", spoiled(says(tiff.PHOTOMETRIC, tiff.SHORT, tiff.RGB)), "tiles"),
        Recipe("a photometric of nobody", spoiled(says(tiff.PHOTOMETRIC, tiff.SHORT, 999)), bad),
        Recipe("16 bits", spoiled(says(tiff.BITS, tiff.SHORT, 16, 16, 16)), "unsupported_format"),
        Recipe("one sample", spoiled(says(tiff.SAMPLES, tiff.SHORT, 1)), bad),
        Recipe("separate planes", spoiled(says(tiff.PLANAR, tiff.SHORT, 2)), bad),
        Recipe("tables of garbage", spoiled(lambda one: replace(one, tables=bytes(range(256)))), bad),
        Recipe("tables that lack all", spoiled(lambda one: _shared(tables=b"\xff\xd8\xff\xd9")), bad),
        Recipe("tables cut off", spoiled(lambda one: _shared(tables=one.tables[:100])), bad),
        Recipe("tables of 16 MB", spoiled(lambda one: replace(one, tables=_long_tables())), "tiles"),
    ]


def _tile() -> bytes:
    return slides.two_levels()[0].tiles[0]


def _shared(tables: bytes) -> Directory:
    return replace(slides.level(320, 256, shared_tables=True), tables=tables)


def _long_tables() -> bytes:
    return jpeg.with_segments(b"\xff\xd8\xff\xd9", *_comments(250))


def _directories() -> list[Recipe]:
    return [
        Recipe(
            "a chain that loops",
            lambda: write_tiff(slides.two_levels(), next_offset=lambda at: at[0]),
            "unsupported_format",
        ),
        Recipe(
            "a chain that points past the end",
            lambda: write_tiff(slides.two_levels(), next_offset=lambda at: 2**31),
            "unreadable_slide",
        ),
        Recipe(
            "a chain into pixels", lambda: write_tiff(slides.two_levels(), next_offset=lambda at: 9), "unreadable_slide"
        ),
        Recipe("200,000 directories", lambda: _many_directories(200_000), "unsupported_format"),
        Recipe("3,000 levels", lambda: _many_levels(3_000), "slide_too_large"),
        Recipe("60,000 tags", lambda: _many_tags(60_000), "unreadable_slide"),
        Recipe(
            "a description of 16 MB",
            spoiled(lambda one: replace(one, description=one.description + "|x" * 2**23)),
            "tiles",
        ),
        Recipe(
            "a description that is not text",
            spoiled(says(tiff.DESCRIPTION, tiff.ASCII, *b"Aperio \xff\xfe\r\n", *range(128, 256))),
            "missing_mpp",
        ),
        Recipe(
            "a tag with 2^32 - 1 values", spoiled(says(700, tiff.UNDEFINED, *b"abcdefgh", count=2**32 - 1)), "tiles"
        ),
        Recipe(
            "a BigTIFF tag with 2^62 values",
            lambda: write_tiff(
                [says(700, tiff.LONG8, 1, 2, count=2**62)(one) for one in slides.two_levels()], big=True
            ),
            "unsupported_format",
        ),
    ]


def _many_directories(count: int) -> bytes:
    data = bytearray(b"II\x2a\0\x08\0\0\0")
    for index in range(count):
        after = len(data) + 18 if index < count - 1 else 0
        data += struct.pack("<HHHII", 1, 256, 4, 1, 1) + struct.pack("<I", after)
    return bytes(data)


def _many_levels(count: int) -> bytes:
    one = slides.level(64, 64)
    return write_tiff([one] * count)


def _many_tags(count: int) -> bytes:
    first, second = slides.two_levels()
    extra = {tag: Field(tiff.SHORT, [1]) for tag in range(1_000, 1_000 + count)}
    return write_tiff([replace(first, says=extra), second])


def _bombs() -> list[Recipe]:
    large = "slide_too_large"
    return [
        Recipe("one tile of 16,000 px", lambda: _flat(16_000, 16_000), large),
        Recipe("one tile of 65,488 px", lambda: _flat(65_488, 65_488), large),
        Recipe("a slide of 64 px in a tile of 16,000 px", lambda: _flat(64, 16_000), large),
        Recipe("a deflated tile of 4,096 px", lambda: _deflated(4_096, 4_096), "no_tissue"),
        Recipe("a deflated tile of 8,192 px", lambda: _deflated(8_192, 8_192), large),
        Recipe("a small deflated tile of 256 MB", lambda: _deflated(64, 10_000), "no_tissue"),
    ]


def _flat(slide_px: int, tile_px: int) -> bytes:
    return single_tile((slide_px, slide_px), tile_px, jpeg.flat(tile_px, tile_px))


def _deflated(tile_px: int, content_px: int) -> bytes:
    """Black, 2,000 px of it shown: reading that once costs one tile."""
    packer = zlib.compressobj(1)
    rows = [packer.compress(bytes(content_px * 3)) for _ in range(content_px)]
    side = min(tile_px, 2_000)
    stream = b"".join([*rows, packer.flush()])
    return single_tile((side, side), tile_px, stream, photometric=tiff.RGB, compression=tiff.DEFLATE)


def _cut() -> list[Recipe]:
    whole = write_tiff(slides.two_levels())
    sizes = [2**power for power in range(1, len(whole).bit_length())]
    return [Recipe(f"cut at {size} bytes", partial(bytes, whole[:size]), "unreadable_slide") for size in sizes]
