from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.errors import UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.plan_slide import make_plan
from encoders.tiling.read_tiles import read_tile, read_tiles
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.slide_reader import Scale, SlideReader
from encoders.types import TilePlan
from model_store.contracts.tile_encoder import TilingSpec

LIMITS = ReaderLimits()


class Slots:
    """Slots of this process; whoever takes a batch says with `free` that its slot may be written anew."""

    def __init__(self, slots: int, batch_tiles: int, tile_px: int = 256) -> None:
        self._memory = np.zeros((slots, batch_tiles, tile_px, tile_px, 3), dtype=np.uint8)
        self._freed = 0
        self.waited = 0

    def __len__(self) -> int:
        return len(self._memory)

    def view(self, slot: int, count: int) -> NDArray[np.uint8]:
        return self._memory[slot, :count]

    def free(self) -> None:
        self._freed += 1

    def take_freed(self, *, wait: bool) -> int:
        self.waited += wait
        assert self._freed or not wait, "the reading waits for a slot that nobody can free any more"
        freed, self._freed = self._freed, 0
        return freed


def collect(
    reader: SlideReader, plan: TilePlan, slots: Slots, batch_tiles: int, threads: int, first_tile: int = 0
) -> tuple[list[tuple[int, int]], NDArray[np.uint8]]:
    """(first, slot) of each batch, and all their pixels."""
    seen, pixels = [], []
    for batch in read_tiles(reader, plan, slots, batch_tiles, threads, first_tile):
        seen.append((batch.first, batch.slot))
        pixels.append(slots.view(batch.slot, batch.count).copy())
        slots.view(batch.slot, batch.count)[:] = 77  # what is left of the batch may not show up in a later one
        slots.free()
    return seen, np.concatenate(pixels)


def whole_tiles(reader: SlideReader, plan: TilePlan) -> NDArray[np.uint8]:
    return np.stack([reader.read_region(int(x), int(y), plan.level, 256, 256) for x, y in plan.coords])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("batch_tiles", "slots"), [(1, 1), (1, 4), (7, 2), (17, 3), (1_000, 2)])
def test_batches_come_complete_and_in_the_plans_order(
    sample_slide: Path, tiling: TilingSpec, batch_tiles: int, slots: int, threads: int
) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    plan = make_plan(reader, tiling, None, LIMITS)

    seen, pixels = collect(reader, plan, Slots(slots, batch_tiles), batch_tiles, threads)

    firsts = range(0, len(plan.coords), batch_tiles)
    assert seen == [(first, index % slots) for index, first in enumerate(firsts)]
    assert np.array_equal(pixels, whole_tiles(reader, plan))


def test_a_reading_can_begin_at_any_tile(sample_slide: Path, tiling: TilingSpec) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    plan = make_plan(reader, tiling, None, LIMITS)

    seen, pixels = collect(reader, plan, Slots(2, 8), 8, 2, first_tile=5)

    assert seen[0] == (5, 0)
    assert np.array_equal(pixels, whole_tiles(reader, plan)[5:])


def test_no_slot_is_written_before_it_is_free(sample_slide: Path, tiling: TilingSpec) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    plan = make_plan(reader, tiling, None, LIMITS)
    slots = Slots(3, 4)
    reading = read_tiles(reader, plan, slots, 4, 2)

    held = [next(reading) for _ in range(3)]

    expected = whole_tiles(reader, plan)
    for batch in held:
        assert np.array_equal(slots.view(batch.slot, 4), expected[batch.first : batch.first + 4])
    with pytest.raises(AssertionError, match="nobody can free"):
        next(reading)
    assert slots.waited == 1


def test_a_jpeg_decoder_reduces_only_at_exactly_two_or_four(sample_slide: Path, tiling: TilingSpec) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    plan = make_plan(reader, tiling.model_copy(update={"reduction": "dct"}), 0.25, LIMITS)
    x, y = (int(value) for value in plan.coords[0])

    for factor in (2, 4):
        tile = read_tile(reader, replace(plan, read_px=256 * factor), x, y)
        reduced = reader.read_reduced(x, y, 0, 256 * factor, 256 * factor, Scale(factor, "dct"))
        assert np.array_equal(tile, reduced)
    by_area = replace(plan, read_px=768, reduction="area")
    assert np.array_equal(read_tile(reader, replace(plan, read_px=768), x, y), read_tile(reader, by_area, x, y))


@pytest.mark.parametrize("mpp", [0.5, 0.25, 0.54])
@pytest.mark.parametrize("reduction", ["area", "dct"])
def test_a_tile_is_written_to_where_it_is_wanted(
    sample_slide: Path, tiling: TilingSpec, mpp: float, reduction: str
) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    plan = make_plan(reader, tiling.model_copy(update={"reduction": reduction}), mpp, LIMITS)
    x, y = (int(value) for value in plan.coords[0])
    slot = np.zeros((3, 256, 256, 3), dtype=np.uint8)

    tile = read_tile(reader, plan, x, y, out=slot[1])

    assert np.shares_memory(tile, slot[1])
    assert np.array_equal(slot[1], read_tile(reader, plan, x, y))
    assert not slot[0].any()
    assert not slot[2].any()


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
        collect(damaged, plan, Slots(3, 4), 4, threads=3)


def test_good_tiles_read_beside_a_damaged_one_are_not_blamed(shared_slides: Path, tiling: TilingSpec) -> None:
    whole = OpenSlideReader(shared_slides / "cmu-1-small-region.svs", LIMITS)
    plan = make_plan(whole, tiling, None, LIMITS)
    damaged = OpenSlideReader(shared_slides / "made_corrupt_zeros_tail.svs", LIMITS)
    good = [index for index, (x, y) in enumerate(plan.coords) if y + 256 <= 1200]
    last_is_bad = replace(plan, coords=np.concatenate([plan.coords[good], [[960, 1200]]]))

    for _ in range(5):
        with pytest.raises(UnreadableSlide, match=r"\(960, 1200\) – \(1216, 1456\)"):
            collect(damaged, last_is_bad, Slots(5, 1), 1, threads=4)
