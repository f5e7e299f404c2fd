"""Overviews of slides without a low level: decoded small, glass skipped, and the plan is the same."""

from pathlib import Path

import numpy as np
import pytest
from single_level_slide import GLASS_RGB, INK, INK_RGB, SIDE_PX, write_single_level_slide

from encoders.errors import SlideTooLarge, UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.plan_tiles import AreaMask, choose_scale, plan_tiles
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.fast_tiff import FastTiffReader
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.slide_reader import Scale, SlideReader
from encoders.tiling.tissue import decode_small as decoding
from encoders.tiling.tissue.find_tissue import find_tissue
from encoders.tiling.tissue.read_overview import read_overview
from model_store.contracts.tile_encoder import TilingSpec
from synthetic.write_slide import write_sample_slide

LIMITS = ReaderLimits()
EVERYTHING_PX = 10**12


@pytest.fixture(scope="module")
def single_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "single.svs"
    write_single_level_slide(path)
    return path


class CountedReader:
    """A reader that counts the level-0 pixels it is asked for, reduced or not."""

    def __init__(self, reader: SlideReader) -> None:
        self.facts, self.levels, self.tile_sizes = reader.facts, reader.levels, reader.tile_sizes
        self.tile_bytes, self.empty_tiles = reader.tile_bytes, reader.empty_tiles
        self.reduced_px = self.painted_px = 0
        self._reader = reader

    def read_region(self, x: int, y: int, level: int, width: int, height: int, out: None = None) -> np.ndarray:
        self.painted_px += width * height
        return self._reader.read_region(x, y, level, width, height, out)

    def read_covered(self, x: int, y: int, level: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray | None]:
        self.painted_px += width * height
        return self._reader.read_covered(x, y, level, width, height)

    def read_reduced(
        self,
        x: int,
        y: int,
        level: int,
        width: int,
        height: int,
        scale: Scale,
        out: None = None,
    ) -> np.ndarray:
        self.reduced_px += width * height
        return self._reader.read_reduced(x, y, level, width, height, scale, out)


def fast(path: Path) -> FastTiffReader:
    reader = open_reader(path, LIMITS).reader
    assert isinstance(reader, FastTiffReader)
    return reader


def planned(reader: SlideReader, tiling: TilingSpec, exact_px: int = 0) -> list[list[int]]:
    """The plan when level 0 is all there is."""
    scale = choose_scale(reader.levels[:1], reader.facts.mpp or 0.5, tiling)
    overview = read_overview(reader, scale.tile_px_level0 / 16, 1, LIMITS, exact_px=exact_px)
    mask = AreaMask(find_tissue(overview.pixels), overview.px_level0)
    return plan_tiles(reader.facts, scale, mask, tiling, mpp_override=None, max_tiles=10**6).coords.tolist()


def without_prefilter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "find_glass_tiles", lambda sizes: np.zeros(sizes.shape, dtype=np.bool_))


def test_glass_is_skipped_and_the_plan_is_the_same(
    single_level: Path, tiling: TilingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = CountedReader(fast(single_level))
    with_prefilter = planned(reader, tiling)
    skipped_px = SIDE_PX**2 - reader.reduced_px
    painted = planned(OpenSlideReader(single_level, LIMITS), tiling, EVERYTHING_PX)
    without_prefilter(monkeypatch)

    assert with_prefilter == planned(fast(single_level), tiling) == painted
    assert len(painted) > 80
    assert skipped_px > SIDE_PX**2 / 5
    assert reader.painted_px == 0


def test_the_real_slides_plan_is_the_same(
    shared_slides: Path, tiling: TilingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_slides / "cmu-1-small-region.svs"
    with_prefilter = planned(fast(path), tiling)
    painted = planned(OpenSlideReader(path, LIMITS), tiling, EVERYTHING_PX)
    without_prefilter(monkeypatch)

    assert with_prefilter == planned(fast(path), tiling) == painted
    assert len(painted) == 49


@pytest.mark.parametrize("seed", [3, 16, 40])
def test_drawn_slides_plans_are_the_same(
    tmp_path: Path, tiling: TilingSpec, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "drawn.svs"
    write_sample_slide(path, seed=seed, width_px=4096, height_px=3072)
    with_prefilter = planned(fast(path), tiling)
    without_prefilter(monkeypatch)

    assert with_prefilter == planned(fast(path), tiling)


def test_skipped_blocks_have_the_colour_of_what_lies_there(single_level: Path) -> None:
    reader = CountedReader(fast(single_level))

    overview = read_overview(reader, 16, 1, LIMITS, exact_px=0)

    def at(x: int, y: int) -> np.ndarray:
        return overview.pixels[int(y / overview.px_level0), int(x / overview.px_level0)].astype(int)

    assert overview.px_level0 == 16
    assert np.abs(at(300, 300) - GLASS_RGB).max() <= 2
    assert np.abs(at(INK[0], INK[1]) - INK_RGB).max() <= 4
    assert at(SIDE_PX - 10, 3_000).max() <= 2


def test_decoded_small_it_looks_like_the_painted_one(single_level: Path) -> None:
    small = read_overview(fast(single_level), 16, 1, LIMITS, exact_px=0).pixels.astype(int)
    painted = read_overview(OpenSlideReader(single_level, LIMITS), 16, 1, LIMITS).pixels.astype(int)

    assert small.shape == painted.shape
    assert np.abs(small - painted).mean() < 1


@pytest.mark.parametrize(("wanted", "got"), [(28, 24), (7, 4), (3, 2), (1, 1)])
def test_the_scale_is_one_that_the_decoder_reaches_and_never_coarser(single_level: Path, wanted: int, got: int) -> None:
    overview = read_overview(fast(single_level), wanted, 1, LIMITS, exact_px=0)

    assert overview.px_level0 == got
    assert overview.pixels.shape[0] == -(-SIDE_PX // got)


def test_a_level_of_moderate_size_is_painted_exactly(single_level: Path) -> None:
    reader = CountedReader(fast(single_level))

    read_overview(reader, 16, 1, LIMITS)

    assert reader.reduced_px == 0


def test_what_may_be_painted_bounds_what_is_decoded_small(single_level: Path) -> None:
    reader = CountedReader(fast(single_level))

    with pytest.raises(SlideTooLarge, match="no low-resolution level"):
        read_overview(reader, 16, 1, ReaderLimits(max_overview_px=10**6), exact_px=0)

    assert reader.reduced_px == 0
    # More is allowed than could be painted: decoding small costs a fraction.
    read_overview(reader, 16, 1, ReaderLimits(max_overview_px=SIDE_PX**2 // 6), exact_px=0)


def test_a_damaged_tile_is_named(single_level: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.svs"
    data = bytearray(single_level.read_bytes())
    sizes = fast(single_level).tile_bytes(0)
    assert sizes is not None
    # The tissue's first tile: its bytes begin after those of all tiles before it.
    before = int(sizes.ravel()[: 8 * sizes.shape[1] + 10].sum())
    start = data.index(b"\xff\xd8") + before
    data[start + 2_000 : start + 6_000] = bytes(4_000)
    damaged.write_bytes(data)
    reader = open_reader(damaged, LIMITS).reader

    with pytest.raises(UnreadableSlide, match="damaged in the level-0 rectangle"):
        read_overview(reader, 16, 1, LIMITS, exact_px=0)
