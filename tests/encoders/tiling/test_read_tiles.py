from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from encoders.errors import UnreadableSlide
from encoders.tiling.answer_requests import make_plan
from encoders.tiling.open_slide import OpenSlideReader
from encoders.tiling.read_tiles import read_tile, read_tiles
from encoders.tiling.reader_limits import ReaderLimits
from model_store.manifest import TilingSpec

LIMITS = ReaderLimits()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_tiles", [1, 7, 1_000])
def test_batches_come_complete_and_in_the_plans_order(
    sample_slide: Path, tiling: TilingSpec, batch_tiles: int, threads: int
) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    plan = make_plan(reader, tiling, None, LIMITS)

    batches = list(read_tiles(reader, plan, batch_tiles, threads))

    assert [batch.first for batch in batches] == list(range(0, len(plan.coords), batch_tiles))
    pixels = np.concatenate([batch.pixels for batch in batches])
    expected = [reader.read_region(int(x), int(y), 0, 256, 256) for x, y in plan.coords]
    assert np.array_equal(pixels, np.stack(expected))


def test_a_finer_slide_is_reduced_by_area(sample_slide: Path, tiling: TilingSpec) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    plan = make_plan(reader, tiling, 0.25, LIMITS)
    x, y = (int(value) for value in plan.coords[0])

    tile = read_tile(reader, plan, x, y)

    assert plan.read_px == 512
    whole = reader.read_region(x, y, 0, 512, 512).astype(np.float64)
    assert np.abs(tile - whole.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))).max() <= 0.5


def test_a_slightly_coarse_slide_is_enlarged_to_the_tiles_size(sample_slide: Path, tiling: TilingSpec) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    plan = make_plan(reader, tiling, 0.54, LIMITS)
    x, y = (int(value) for value in plan.coords[0])

    tile = read_tile(reader, plan, x, y)

    region = reader.read_region(x, y, 0, 237, 237)
    assert np.array_equal(tile, cv2.resize(region, (256, 256), interpolation=cv2.INTER_LINEAR))


def test_one_damaged_tile_ends_the_reading_and_is_named(shared_slides: Path, tiling: TilingSpec) -> None:
    whole = OpenSlideReader(shared_slides / "cmu-1-small-region.svs", LIMITS)
    plan = make_plan(whole, tiling, None, LIMITS)
    damaged = OpenSlideReader(shared_slides / "made_corrupt_zeros_tail.svs", LIMITS)

    with pytest.raises(UnreadableSlide, match=r"\(768, 1024\) – \(1024, 1280\)"):
        list(read_tiles(damaged, plan, 4, threads=3))


def test_good_tiles_read_beside_a_damaged_one_are_not_blamed(shared_slides: Path, tiling: TilingSpec) -> None:
    whole = OpenSlideReader(shared_slides / "cmu-1-small-region.svs", LIMITS)
    plan = make_plan(whole, tiling, None, LIMITS)
    damaged = OpenSlideReader(shared_slides / "made_corrupt_zeros_tail.svs", LIMITS)
    good = [index for index, (x, y) in enumerate(plan.coords) if y + 256 <= 1200]
    last_is_bad = replace(plan, coords=np.concatenate([plan.coords[good], [[960, 1200]]]))

    for _ in range(5):
        with pytest.raises(UnreadableSlide, match=r"\(960, 1200\) – \(1216, 1456\)"):
            list(read_tiles(damaged, last_is_bad, 1, threads=4))
