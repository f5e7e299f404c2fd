"""Slides made to harm, through the real reader process: each ends as it should, and nothing of it stays here."""

import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from hostile_recipes import Recipe, large_lossless_tile, recipes
from hostile_slides import TILE_PX, picture, slow_slide, two_levels
from tiff_draft import write_tiff

from encoders.errors import ReaderDied, SlideError
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from model_store.contracts.tile_encoder import TilingSpec

# A quarter of the memory that a worker grants: whatever needs more dies, and dying is not what is expected here.
LIMITS = ReaderLimits(memory_bytes=2**30, deadline_s=100)
# Far more than the worker's own share of reading a slide, far less than any of the bombs.
GROWTH_BYTES = 64 * 2**20
HANGS = (sys.executable, "-c", "import signal; signal.pause()")
Held = tuple[set[str], int]


@pytest.fixture
def small_tiles(tiling: TilingSpec) -> TilingSpec:
    return tiling.model_copy(update={"tile_px": TILE_PX})


def encode_outcome(path: Path, tiling: TilingSpec) -> str:
    """ "tiles", or the code of the slide's error. A reader that dies or falls silent is neither."""
    try:
        with ReaderProcess(path, LIMITS) as reader:
            total = len(reader.plan(tiling, None).coords)
            assert sum(len(batch.pixels) for batch in reader.tiles(8)) == total
            return "tiles"
    except SlideError as error:
        return error.code


def held() -> Held:
    """Child processes, and how many descriptors are open."""
    children = {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}
    return children, len(os.listdir("/proc/self/fd"))


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_a_hostile_slide_ends_as_it_should(recipe: Recipe, tmp_path: Path, small_tiles: TilingSpec) -> None:
    path = tmp_path / "hostile.svs"
    path.write_bytes(recipe.make())
    before, grown = held(), peak_bytes()

    outcome = encode_outcome(path, small_tiles)

    assert outcome == recipe.code
    assert held() == before
    assert peak_bytes() - grown < GROWTH_BYTES
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_what_is_spoiled_is_a_good_slide(tmp_path: Path, small_tiles: TilingSpec) -> None:
    """Without this, a recipe might fail for a reason that is not its own."""
    path = tmp_path / "honest.svs"
    path.write_bytes(write_tiff(two_levels()))

    with ReaderProcess(path, LIMITS) as reader:
        plan = reader.plan(small_tiles, None)
        tiles = np.concatenate([batch.pixels.copy() for batch in reader.tiles(8)])

    drawn = picture(320, 256)
    assert len(tiles) > 10
    for (x, y), pixels in zip(plan.coords, tiles, strict=True):
        # Lossy by a few grey levels; a swapped channel or a shifted tile would be tens.
        assert np.abs(pixels.astype(int) - drawn[y : y + TILE_PX, x : x + TILE_PX]).mean() < 5


def test_a_decoder_that_cannot_reduce_does_not_write_beyond_its_buffer(tmp_path: Path, small_tiles: TilingSpec) -> None:
    """libjpeg-turbo gives a lossless tile in full, however small a picture is asked for: 9 MB too much of this one."""
    path = tmp_path / "lossless.svs"
    path.write_bytes(large_lossless_tile())
    halved = small_tiles.model_copy(update={"target_mpp": 1.0, "reduction": "dct"})

    assert encode_outcome(path, halved) == "tiles"


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow.svs"
    path.write_bytes(slow_slide())
    return path


def test_a_decoder_that_does_not_come_back_is_stopped_on_the_deadline(slow: Path, small_tiles: TilingSpec) -> None:
    reader = ReaderProcess(slow, ReaderLimits(deadline_s=2))

    with pytest.raises(ReaderDied, match="no answer within 2 s"), reader:
        reader.plan(small_tiles, None)

    assert reader.pid is None


def test_a_decoder_that_burns_its_cpu_time_is_stopped(slow: Path, small_tiles: TilingSpec) -> None:
    reader = ReaderProcess(slow, ReaderLimits(cpu_s=2, deadline_s=100))

    with pytest.raises(ReaderDied, match="ended unexpectedly"), reader:
        reader.plan(small_tiles, None)

    assert reader.pid is None


def test_a_reader_that_hangs_while_opening_is_stopped_on_the_deadline(tmp_path: Path) -> None:
    before = held()
    reader = ReaderProcess(tmp_path / "any", ReaderLimits(deadline_s=0.5), command=HANGS)

    with pytest.raises(ReaderDied, match=r"no answer within 0\.5 s"):
        reader.__enter__()

    assert held() == before
