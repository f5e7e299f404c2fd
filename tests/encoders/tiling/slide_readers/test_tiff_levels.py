import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiff_draft as draft
import tifffile
from tiled_jpeg import Recipe, write_slide

from encoders.errors import UnreadableSlide
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.tiff_levels import MAX_TILES, TiledImage, read_tiled_images

DIRECTORY = draft.Directory(100, 60, 64, [b"first", b"second one"], tables=b"\xff\xd8\xff\xd9")


def images_of(path: Path) -> tuple[TiledImage, ...]:
    file = os.open(path, os.O_RDONLY)
    try:
        return read_tiled_images(file)
    finally:
        os.close(file)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slide.tif"


def reason(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(NotEligible) as caught:
        images_of(path)
    return caught.value.reason


@pytest.mark.parametrize("big", [False, True])
def test_what_a_directory_says(path: Path, big: bool) -> None:
    path.write_bytes(draft.write_tiff([DIRECTORY, replace(DIRECTORY, width_px=50, tiles=[b"third"])], big=big))

    first, second = images_of(path)

    assert (first.width, first.height, first.tile_width, first.tile_height) == (100, 60, 64, 64)
    assert (first.compression, first.photometric, first.bits) == (7, 6, (8, 8, 8))
    assert first.is_interleaved
    assert first.jpeg_tables == b"\xff\xd8\xff\xd9"
    data = path.read_bytes()
    for image, tiles in ((first, [b"first", b"second one"]), (second, [b"third"])):
        spans = zip(image.offsets.ravel(), image.byte_counts.ravel(), strict=True)
        assert image.offsets.shape == image.byte_counts.shape == (1, len(tiles))
        assert [data[start : start + count] for start, count in spans] == tiles


@pytest.mark.parametrize("order", ["<", ">"])
def test_another_reader_finds_the_same_tiles(path: Path, order: str) -> None:
    pixels = np.zeros((300, 500, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 128), photometric="rgb", byteorder=order, compression="zlib")

    (image,) = images_of(path)

    with tifffile.TiffFile(path) as tiff:
        assert tuple(image.offsets.ravel()) == tiff.pages[0].dataoffsets
        assert tuple(image.byte_counts.ravel()) == tiff.pages[0].databytecounts
    assert image.offsets.shape == (5, 4)


def test_images_in_strips_are_left_out(path: Path) -> None:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((60, 100, 3), np.uint8), photometric="rgb")
        tiff.write(np.zeros((60, 100, 3), np.uint8), photometric="rgb", tile=(16, 16))

    assert [image.tile_width for image in images_of(path)] == [16]


def test_a_chain_that_loops_ends(path: Path) -> None:
    path.write_bytes(draft.write_tiff([DIRECTORY, DIRECTORY], next_offset=lambda at: at[0]))

    assert len(images_of(path)) == 2


def test_a_chain_that_no_slide_has(path: Path) -> None:
    assert reason(path, draft.write_tiff([DIRECTORY] * 300)) == "unreadable_directory"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("tag", "field"),
    [
        (draft.TILE_WIDTH, draft.Field(draft.LONG, [0])),
        (draft.TILE_WIDTH, draft.Field(draft.LONG, [16])),
        (draft.TILE_OFFSETS, draft.Field(draft.LONG, [8])),
        (draft.TILE_OFFSETS, draft.Field(draft.LONG, [8, 8], count=3_999_999)),
        (draft.TILE_OFFSETS, draft.Field(draft.ASCII, [8, 8])),
        (draft.TILE_COUNTS, None),
        (draft.PHOTOMETRIC, None),
        (draft.PHOTOMETRIC, draft.Field(draft.SHORT, [6, 6])),
        (draft.WIDTH, draft.Field(draft.LONG, [100], count=0)),
        (draft.WIDTH, draft.Field(draft.LONG, [2**32 - 1])),
        (draft.JPEG_TABLES, draft.Field(draft.UNDEFINED, bytes(70_000))),
    ],
)
def test_directories_that_only_openslide_may_judge(path: Path, big: bool, tag: int, field: draft.Field | None) -> None:
    data = draft.write_tiff([replace(DIRECTORY, says={tag: field})], big=big)

    assert reason(path, data) == "unreadable_directory"


def test_a_tag_given_twice(path: Path) -> None:
    data = draft.write_tiff([DIRECTORY])
    height_then_width = struct.pack("<H", draft.HEIGHT), struct.pack("<H", draft.WIDTH)
    entry = struct.pack("<HHI", draft.HEIGHT, draft.LONG, 1)

    assert reason(path, data.replace(entry, entry.replace(*height_then_width))) == "unreadable_directory"


def test_more_tiles_than_any_slide_has(path: Path) -> None:
    lying = draft.Field(draft.LONG, [8, 8], count=MAX_TILES + 1)

    assert reason(path, draft.write_tiff([replace(DIRECTORY, says={draft.TILE_OFFSETS: lying})])) == "too_many_tiles"


@pytest.mark.parametrize(
    ("offsets", "counts"),
    [([8, 2**64 - 1], [5, 5]), ([8, 8], [5, 2**64 - 1]), ([8, 2**63], [5, 2**63]), ([8, 2**64 - 8], [5, 16])],
)
def test_tiles_outside_the_file_whatever_their_sum_wraps_to(path: Path, offsets: list[int], counts: list[int]) -> None:
    lying = replace(DIRECTORY, move_offsets=lambda _: offsets, move_counts=lambda _: counts)

    path.write_bytes(draft.write_tiff([lying], big=True))

    with pytest.raises(UnreadableSlide, match="shorter than its directory says"):
        images_of(path)


def spoiled(data: bytes) -> Iterator[bytes]:
    random = np.random.default_rng(2)
    for length in random.integers(0, len(data), 60):
        yield data[:length]
    for _ in range(300):
        changed = bytearray(data)
        for at in random.integers(0, len(data), 3):
            changed[at] = random.integers(256)
        yield bytes(changed)


@pytest.mark.parametrize("big", [False, True])
def test_whatever_the_bytes_it_gives_tiles_inside_the_file_or_a_reason(path: Path, big: bool) -> None:
    refused = 0
    for data in spoiled(draft.write_tiff([DIRECTORY, DIRECTORY], big=big)):
        path.write_bytes(data)
        try:
            images = images_of(path)
        except (NotEligible, UnreadableSlide):
            refused += 1
            continue
        assert all((image.offsets + image.byte_counts <= len(data)).all() for image in images)
        assert all((image.offsets >= 0).all() and (image.byte_counts >= 0).all() for image in images)
    assert 60 < refused < 360


def test_a_directory_of_a_written_slide(path: Path) -> None:
    (image,) = images_of(write_slide(path, Recipe(is_rgb=True)))

    assert (image.photometric, image.offsets.shape) == (2, (4, 6))
    assert image.jpeg_tables.startswith(b"\xff\xd8")
