from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.errors import SlideTooLarge, UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.slide_reader import Level, Scale, damaged
from encoders.tiling.tissue.read_overview import BLOCK_PX, read_overview
from encoders.types import SlideFacts

LIMITS = ReaderLimits()


class PaintedSlide:
    """A slide of one colour gradient that remembers the largest region anyone asked for."""

    def __init__(
        self, width: int, height: int, downsamples: tuple[float, ...], bad: tuple[int, int] | None = None
    ) -> None:
        self.facts = SlideFacts("painted", width, height, 0.25, None)
        self.levels = tuple(Level(int(width / step), int(height / step), step) for step in downsamples)
        self.tile_sizes = (None,) * len(downsamples)
        self.largest_px = 0
        self.levels_read: set[int] = set()
        self._bad = bad

    def read_region(
        self, x: int, y: int, level: int, width: int, height: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        self.largest_px = max(self.largest_px, width * height)
        self.levels_read.add(level)
        step = self.levels[level].downsample
        if self._bad and x <= self._bad[0] < x + width * step and y <= self._bad[1] < y + height * step:
            raise damaged(self.facts, x, y, int(width * step), int(height * step))
        columns = x + np.arange(width) * step
        shade = np.where(columns < self.facts.width, columns / self.facts.width * 200, 255).astype(np.uint8)
        pixels = np.empty((height, width, 3), dtype=np.uint8) if out is None else out
        pixels[...] = shade[np.newaxis, :, np.newaxis]
        return pixels

    def read_reduced(
        self,
        x: int,
        y: int,
        level: int,
        width: int,
        height: int,
        scale: Scale,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        raise AssertionError("it has no JPEG tiles to be reduced")

    def read_covered(
        self, x: int, y: int, level: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        return self.read_region(x, y, level, width, height), None

    def empty_tiles(self, level: int) -> NDArray[np.bool_] | None:
        return None

    def tile_bytes(self, level: int) -> NDArray[np.int64] | None:
        return None


def test_no_level_is_ever_read_whole() -> None:
    slide = PaintedSlide(12_000, 9_000, (1.0,))

    overview = read_overview(slide, 16, 64, LIMITS)

    assert overview.px_level0 == 16
    assert overview.pixels.shape == (563, 750, 3)
    assert slide.largest_px <= BLOCK_PX**2


@pytest.mark.parametrize(("downsamples", "level"), [((1.0, 4.0, 16.0, 64.0), 3), ((1.0, 4.0, 100.0), 1), ((1.0,), 0)])
def test_the_coarsest_level_that_still_shows_enough_is_read(downsamples: tuple[float, ...], level: int) -> None:
    slide = PaintedSlide(20_000, 10_000, downsamples)

    read_overview(slide, 32, 64, LIMITS)

    assert slide.levels_read == {level}


def test_the_picture_equals_reducing_the_whole_level_at_once(sample_slide: Path) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    whole = reader.read_region(0, 0, 0, 2048, 1536)

    overview = read_overview(reader, 8, 1, LIMITS)

    assert np.array_equal(overview.pixels, cv2.resize(whole, (256, 192), interpolation=cv2.INTER_AREA))


def test_pixels_that_reach_beyond_the_slide_are_white_there() -> None:
    slide = PaintedSlide(100, 100, (1.0,))

    overview = read_overview(slide, 64, 64, LIMITS)

    assert overview.pixels.shape == (2, 2, 3)
    assert overview.pixels[0, 1, 0] > overview.pixels[0, 0, 0]


def test_a_fault_is_narrowed_down_to_about_a_tile() -> None:
    slide = PaintedSlide(8_000, 8_000, (1.0,), bad=(5_000, 3_000))

    with pytest.raises(UnreadableSlide) as caught:
        read_overview(slide, 16, 64, LIMITS)

    assert "(4864, 2816) – (5120, 3072)" in caught.value.detail


def test_a_huge_slide_without_a_small_level_is_refused_before_it_is_read() -> None:
    slide = PaintedSlide(100_000, 100_000, (1.0, 2.0))

    with pytest.raises(SlideTooLarge, match="no low-resolution level"):
        read_overview(slide, 16, 64, ReaderLimits(max_overview_px=10**9))

    assert slide.levels_read == set()
