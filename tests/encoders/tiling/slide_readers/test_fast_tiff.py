"""The fast reader gives OpenSlide's pixels: every expectation here is what OpenSlide reads from the same file."""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cv2
import hostile_jpeg
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from tiled_jpeg import Recipe, write_slide

from encoders.errors import UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.color_conflict import ColorConflict
from encoders.tiling.slide_readers.fast_tiff import FastTiffReader
from encoders.tiling.slide_readers.jpeg_tiles import JpegTiles, UndecodableTile
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.slide_reader import Scale

LIMITS = ReaderLimits()
# 700 × 500 px in tiles of 128: 6 × 4 of them, the last column and row cut.
WIDTH, HEIGHT, TILE_PX = 700, 500, 128
Decode = Callable[[JpegTiles, int, int, int, NDArray[np.uint8]], None]


def open_fast(path: Path, **more: int) -> FastTiffReader:
    return FastTiffReader(path, OpenSlideReader(path, LIMITS), **more)


def grid(width: int, height: int, step: int, start: int = 0) -> Iterator[tuple[int, int]]:
    for y in range(start, height, step):
        for x in range(start, width, step):
            yield x, y


def assert_equal(
    fast: FastTiffReader, slide: OpenSlideReader, x: int, y: int, level: int, size: tuple[int, int]
) -> None:
    expected = slide.read_region(x, y, level, *size)
    assert np.array_equal(fast.read_region(x, y, level, *size), expected), (x, y, level, size)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "slide.svs", Recipe())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """How often each (column, row) of a JPEG tile was decoded."""
    counts: Counter[tuple[int, int]] = Counter()
    original = JpegTiles.decode

    def counting(tiles: JpegTiles, column: int, row: int, factor: int, out: NDArray[np.uint8]) -> None:
        counts[column, row] += 1
        original(tiles, column, row, factor, out)

    monkeypatch.setattr(JpegTiles, "decode", counting)
    return counts


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(subsampling="444"),
        Recipe(subsampling="422", shared_tables=False),
        Recipe(shared_tables=False, optimize=True),
        Recipe(is_rgb=True),
        Recipe(is_rgb=True, shared_tables=False, big=True),
        Recipe(sizes=((700, 500), (350, 250), (175, 125)), tile_px=64, big=True),
        Recipe(sizes=((800, 640), (200, 160)), tile_px=240, description=None),
        Recipe(sizes=((701, 499), (350, 249)), description=None),
        Recipe(sizes=((100, 90),), tile_px=512),
    ],
    ids=str,
)
def test_pixels_equal_openslides_everywhere(tmp_path: Path, recipe: Recipe) -> None:
    path = write_slide(tmp_path / "slide.svs", recipe)
    fast, slide = open_fast(path), OpenSlideReader(path, LIMITS)

    for index, level in enumerate(slide.levels):
        step = round(level.downsample)
        for x, y in grid(level.width, level.height, recipe.tile_px):
            assert_equal(fast, slide, x * step, y * step, index, (recipe.tile_px, recipe.tile_px))
        for x, y in grid(level.width + 250, level.height + 250, 200, start=-250):
            assert_equal(fast, slide, x * step, y * step, index, (200, 170))
        assert_equal(fast, slide, 0, 0, index, (level.width + 30, level.height + 20))


def test_real_tiles_of_240_px_without_a_colour_marker(shared_slides: Path) -> None:
    path = shared_slides / "cmu-1-small-region.svs"
    fast, slide = open_fast(path), OpenSlideReader(path, LIMITS)

    for x, y in [*grid(2220, 2967, 256), *grid(2220, 2967, 512, start=-100)]:
        assert_equal(fast, slide, x, y, 0, (256, 256))


@pytest.mark.parametrize(("x", "y"), [(-5_000, 0), (0, -5_000), (9_000, 0), (0, 9_000), (WIDTH, HEIGHT)])
def test_a_region_wholly_outside_is_white(slide: Path, x: int, y: int) -> None:
    assert (open_fast(slide).read_region(x, y, 0, 300, 200) == 255).all()


def test_a_level_that_openslide_interpolates_is_left_to_it(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", Recipe(sizes=((701, 499), (175, 124))))
    fast, slide = open_fast(path), OpenSlideReader(path, LIMITS)

    assert not slide.painted_downsamples[1].is_integer()
    assert fast.level_reasons == ("eligible", "other_downsample")
    assert fast.tile_bytes(0) is not None
    assert fast.tile_bytes(1) is None, "nobody may count on its tiles being cheap to decode"
    assert_equal(fast, slide, 400, 240, 1, (100, 100))


def test_positions_between_a_levels_pixels_are_left_to_openslide(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", Recipe(sizes=((800, 640), (200, 160))))
    fast, slide = open_fast(path), OpenSlideReader(path, LIMITS)

    assert fast.level_reasons == ("eligible", "eligible")
    for x, y in [(1, 0), (0, 2), (-3, -4), (402, 203)]:
        assert_equal(fast, slide, x, y, 1, (90, 90))


def test_regions_wider_than_openslide_paints_at_once(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", Recipe(sizes=((9_000, 96), (4_500, 48)), tile_px=256))
    fast, slide = open_fast(path), OpenSlideReader(path, LIMITS)

    assert fast.level_reasons == ("eligible", "eligible")
    assert_equal(fast, slide, -2, 0, 0, (8_500, 90))
    assert_equal(fast, slide, -2, 0, 1, (4_400, 45))


@pytest.mark.parametrize(("x", "width"), [(0, TILE_PX), (60, 200), (600, 200)])
def test_pixels_are_written_where_the_caller_wants_them(slide: Path, x: int, width: int) -> None:
    batch = np.zeros((3, 128, width, 3), dtype=np.uint8)

    given = open_fast(slide).read_region(x, 0, 0, width, 128, batch[1])

    assert np.shares_memory(given, batch)
    assert np.array_equal(batch[1], OpenSlideReader(slide, LIMITS).read_region(x, 0, 0, width, 128))
    assert not batch[0].any()
    assert not batch[2].any()


def test_a_grid_that_does_not_match_decodes_every_tile_once(slide: Path, decoded: Counter[tuple[int, int]]) -> None:
    reader = open_fast(slide)
    decoded.clear()

    for x, y in grid(WIDTH, HEIGHT, 100):
        reader.read_region(x, y, 0, 100, 100)

    assert decoded == dict.fromkeys(((column, row) for column in range(6) for row in range(4)), 1)


def test_tiles_that_no_neighbour_needs_are_not_kept(slide: Path) -> None:
    reader = open_fast(slide)

    for x, y in grid(WIDTH, HEIGHT, 2 * TILE_PX):
        reader.read_region(x, y, 0, 2 * TILE_PX, 2 * TILE_PX)
    assert reader.cached_bytes == 0

    reader.read_region(TILE_PX // 2, 0, 0, TILE_PX, TILE_PX)
    assert reader.cached_bytes == 2 * TILE_PX * TILE_PX * 3


def test_the_memory_of_decoded_tiles_is_bounded_and_pixels_stay_right(slide: Path) -> None:
    room = 3 * TILE_PX * TILE_PX * 3
    fast, oracle = open_fast(slide, cache_bytes=room), OpenSlideReader(slide, LIMITS)

    for x, y in grid(WIDTH, HEIGHT, 90):
        assert_equal(fast, oracle, x, y, 0, (90, 90))
        assert fast.cached_bytes <= room


def test_many_threads_read_the_same_pixels(slide: Path) -> None:
    fast, oracle = open_fast(slide, cache_bytes=4 * TILE_PX * TILE_PX * 3), OpenSlideReader(slide, LIMITS)
    cells = [*grid(WIDTH, HEIGHT, 90)] * 4
    expected = {cell: oracle.read_region(*cell, 0, 90, 90) for cell in set(cells)}

    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda cell: fast.read_region(*cell, 0, 90, 90), cells))

    assert all(np.array_equal(pixels, expected[cell]) for cell, pixels in zip(cells, read, strict=True))


def blankest_tile(reader: FastTiffReader) -> tuple[int, int]:
    """(column, row) of a tile that the self-check does not look at."""
    counts = reader.tile_bytes(0)
    assert counts is not None
    row, column = divmod(int(counts[:-1].argmin()), counts.shape[1])
    return column, row


def spoil(path: Path, stream_of: Callable[[bytes], bytes]) -> tuple[int, int]:
    """Replaces the blankest tile's bytes by as many others; its level-0 corner."""
    reader = open_fast(path)
    column, row = blankest_tile(reader)
    image = reader._images[0]
    start, count = int(image.offsets[row, column]), int(image.byte_counts[row, column])
    data = bytearray(path.read_bytes())
    data[start : start + count] = stream_of(bytes(data[start : start + count])).ljust(count, b"\0")[:count]
    path.write_bytes(data)
    return column * TILE_PX, row * TILE_PX


def test_a_damaged_tile_is_named_and_the_reader_lives_on(slide: Path) -> None:
    x, y = spoil(slide, lambda stream: stream[: len(stream) // 2])
    reader = open_fast(slide)

    for _ in range(2):
        with pytest.raises(UnreadableSlide) as caught:
            reader.read_region(x - 300, y - 300, 0, 500, 500)
        assert f"({x}, {y}) – ({min(x + TILE_PX, WIDTH)}, {y + TILE_PX})" in caught.value.detail

    undamaged = OpenSlideReader(slide, LIMITS).read_region(300, 0, 0, 200, 100)
    assert np.array_equal(reader.read_region(300, 0, 0, 200, 100), undamaged)


def test_a_stream_of_another_size_is_never_decoded(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = spoil(slide, lambda stream: hostile_jpeg.with_size(stream, 65_500, 65_500))
    reader = open_fast(slide)
    decoded: list[bytes] = []
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda stream, *_, **__: decoded.append(stream))

    with pytest.raises(UnreadableSlide, match=rf"\({x}, {y}\)"):
        reader.read_region(x, y, 0, TILE_PX, TILE_PX)

    assert decoded == []


def test_a_grey_tile_in_a_coloured_level_is_openslides_to_judge(slide: Path) -> None:
    x, y = spoil(slide, lambda _: hostile_jpeg.encode_grey(np.full((TILE_PX, TILE_PX, 3), 200, np.uint8)))
    assert_same_outcome(slide, x, y)


def test_a_marker_behind_all_that_other_tiles_begin_with_is_seen(slide: Path) -> None:
    def calls_itself_rgb(_: bytes) -> bytes:
        flat = np.full((TILE_PX, TILE_PX, 3), (200, 100, 50), np.uint8)
        segments, scan = hostile_jpeg.split(hostile_jpeg.abbreviate(hostile_jpeg.encode(flat))[1])
        adobe = hostile_jpeg.APP14, struct.pack(">5sHHHB", b"Adobe", 100, 0, 0, 0)
        return hostile_jpeg.join([*segments[:-1], adobe, segments[-1]], scan)

    x, y = spoil(slide, calls_itself_rgb)
    reader, oracle = open_fast(slide), OpenSlideReader(slide, LIMITS)

    assert_equal(reader, oracle, 0, 0, 0, (TILE_PX, TILE_PX))
    with pytest.raises(ColorConflict):
        reader.read_region(x, y, 0, TILE_PX, TILE_PX)


def assert_same_outcome(slide: Path, x: int, y: int) -> None:
    """The tile's pixels, or why there are none, are OpenSlide's, also after another tile was read."""
    reader, oracle = open_fast(slide), OpenSlideReader(slide, LIMITS)

    def outcome(read: FastTiffReader | OpenSlideReader) -> bytes | str:
        try:
            return read.read_region(x, y, 0, TILE_PX, TILE_PX).tobytes()
        except UnreadableSlide as error:
            return error.detail

    assert_equal(reader, oracle, 0, 0, 0, (TILE_PX, TILE_PX))
    assert outcome(reader) == outcome(oracle)


@pytest.mark.parametrize("scale", [None, Scale(2, "dct"), Scale(2, "area")])
def test_openslides_pixels_win_where_only_our_decoder_fails(
    slide: Path, monkeypatch: pytest.MonkeyPatch, scale: Scale | None
) -> None:
    reader, oracle = open_fast(slide), OpenSlideReader(slide, LIMITS)

    def fail(*_: object) -> None:
        raise UndecodableTile

    monkeypatch.setattr(JpegTiles, "decode", fail)

    if scale is None:
        assert_equal(reader, oracle, 100, 100, 0, (300, 300))
    else:
        expected = cv2.resize(oracle.read_region(100, 100, 0, 300, 300), (150, 150), interpolation=cv2.INTER_AREA)
        assert np.array_equal(reader.read_reduced(100, 100, 0, 300, 300, scale), expected)


@pytest.mark.parametrize("is_rgb", [False, True])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_region_reduced_by_area_is_the_mean_over_openslides_pixels(tmp_path: Path, factor: int, is_rgb: bool) -> None:
    path = write_slide(tmp_path / "slide.svs", Recipe(is_rgb=is_rgb))
    reader, oracle = open_fast(path), OpenSlideReader(path, LIMITS)

    places = [(0, 0), (128, 128), (64, 192), (8, 16), (1, 0), (256, 120), (560, 400), (-64, -8)]
    for (x, y), (width, height) in product(places, [(256, 256), (128, 384), (129, 64)]):
        reduced = reader.read_reduced(x, y, 0, width, height, Scale(factor, "area"))
        assert np.array_equal(reduced, oracle.read_reduced(x, y, 0, width, height, Scale(factor, "area")))


@pytest.mark.parametrize("size", [(701, 499), (702, 500), (704, 512)])
def test_means_at_the_edge_of_a_slide_are_openslides(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_slide(tmp_path / "slide.svs", Recipe(sizes=(size,)))
    reader, oracle = open_fast(path), OpenSlideReader(path, LIMITS)

    for x, y in [(size[0] // 2 * 2 - 256, size[1] // 2 * 2 - 256), (size[0] // 2 * 2 - 128, 0), (512, 384)]:
        reduced = reader.read_reduced(x, y, 0, 256, 256, Scale(2, "area"))
        assert np.array_equal(reduced, oracle.read_reduced(x, y, 0, 256, 256, Scale(2, "area")))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_region_reduced_by_the_decoder_is_about_the_mean_over_an_area(slide: Path, factor: int) -> None:
    reader, oracle = open_fast(slide), OpenSlideReader(slide, LIMITS)

    for x, y, width, height in [(0, 0, 512, 384), (64, 128, 300, 201), (560, 400, 256, 256)]:
        reduced = reader.read_reduced(x, y, 0, width, height, Scale(factor, "dct"))
        expected = oracle.read_reduced(x, y, 0, width, height, Scale(factor, "area"))
        assert reduced.shape == expected.shape == (-(-height // factor), -(-width // factor), 3)
        inside = (slice(max(0, (HEIGHT - y) // factor)), slice(max(0, (WIDTH - x) // factor)))
        assert np.abs(reduced[inside].astype(float) - expected[inside]).mean() < 3
        assert (reduced[-(-(HEIGHT - y) // factor) :] == 255).all()
        assert (reduced[:, -(-(WIDTH - x) // factor) :] == 255).all()


def test_a_region_off_the_grid_of_a_reduction_is_reduced_by_area(slide: Path) -> None:
    reader, oracle = open_fast(slide), OpenSlideReader(slide, LIMITS)

    for x, y in [(1, 0), (0, 3)]:
        reduced = reader.read_reduced(x, y, 0, 256, 256, Scale(4, "dct"))
        assert np.array_equal(reduced, oracle.read_reduced(x, y, 0, 256, 256, Scale(4, "area")))


def test_reducing_a_level_that_is_left_to_openslide(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", Recipe(sizes=((701, 499), (175, 124))))

    reduced = open_fast(path).read_reduced(0, 0, 1, 160, 120, Scale(4, "dct"))

    assert np.array_equal(reduced, OpenSlideReader(path, LIMITS).read_reduced(0, 0, 1, 160, 120, Scale(4, "dct")))


def test_compressed_bytes_tell_tissue_from_glass(slide: Path) -> None:
    counts = open_fast(slide).tile_bytes(0)

    assert counts is not None
    assert counts.shape == (4, 6)
    assert counts[0, 5 - 1] > 4 * counts[3, 0]
