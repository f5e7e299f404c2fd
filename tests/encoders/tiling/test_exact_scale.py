"""From µm/px to the model's target: the exact scale, by area, within stated tolerances, and never guessed."""

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.errors import MissingMpp, ResolutionTooLow
from encoders.tiling.plan_tiles import AreaMask, choose_scale, plan_tiles
from encoders.tiling.read_tiles import read_tile
from encoders.tiling.resolution import effective_mpp
from encoders.tiling.slide_readers.reduce_region import ReducesByArea
from encoders.tiling.slide_readers.slide_reader import Level
from encoders.types import SlideFacts, TilePlan
from model_store.contracts.tile_encoder import TilingSpec

SIDE_PX = 3_000


class StripedSlide(ReducesByArea):
    """One level whose columns have each a grey value of their own, so that a mean over any area is known exactly."""

    def __init__(self, mpp: float | None) -> None:
        self.facts = SlideFacts("drawn", SIDE_PX, SIDE_PX, mpp, None)
        self.levels = (Level(SIDE_PX, SIDE_PX, 1.0),)
        self.columns = np.random.default_rng(3).integers(0, 256, SIDE_PX)

    def read_region(
        self, x: int, y: int, level: int, width: int, height: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        pixels = np.empty((height, width, 3), dtype=np.uint8) if out is None else out
        pixels[...] = self.columns[x : x + width, np.newaxis]
        return pixels


def plan_of(slide: StripedSlide, tiling: TilingSpec, override: float | None = None) -> TilePlan:
    scale = choose_scale(slide.levels, effective_mpp(slide.facts, override), tiling)
    mask = AreaMask(np.ones((10, 10), dtype=np.bool_), SIDE_PX / 10)
    return plan_tiles(slide.facts, scale, mask, tiling, mpp_override=override, max_tiles=1_000)


@pytest.mark.parametrize(("mpp", "read_px"), [(0.2282, 561), (0.25, 512), (0.498, 256), (0.502, 256), (0.545, 235)])
def test_a_tile_covers_the_models_field_of_view(tiling: TilingSpec, mpp: float, read_px: int) -> None:
    plan = plan_of(StripedSlide(mpp), tiling)

    assert (plan.level, plan.read_px, plan.mpp, plan.mpp_source) == (0, read_px, mpp, "property")
    # 128 µm; half a pixel of rounding, or the 1 % within which a level is taken as it is.
    assert plan.tile_px_level0 * mpp == pytest.approx(128, abs=max(mpp / 2, 0.01 * 128))


@pytest.mark.parametrize("mpp", [0.2282, 0.25])
def test_reduction_is_the_mean_over_each_pixels_area(tiling: TilingSpec, mpp: float) -> None:
    slide = StripedSlide(mpp)
    plan = plan_of(slide, tiling)
    x, y = plan.coords[-1].tolist()

    tile = read_tile(slide, plan, x, y)

    edges = np.linspace(0, plan.read_px, 257)
    total = np.concatenate([[0], np.cumsum(slide.columns[x : x + plan.read_px])])
    expected = np.diff(np.interp(edges, np.arange(plan.read_px + 1), total)) / np.diff(edges)
    assert tile.shape == (256, 256, 3)
    assert np.abs(tile - expected[:, np.newaxis]).max() <= 0.51
    assert np.ptp(tile, axis=0).max() == 0


def test_a_tenth_coarser_is_enlarged_and_more_is_refused(tiling: TilingSpec) -> None:
    slide = StripedSlide(0.545)

    assert read_tile(slide, plan_of(slide, tiling), 0, 0).shape == (256, 256, 3)

    with pytest.raises(ResolutionTooLow, match=r"0\.555 µm/px"):
        plan_of(StripedSlide(0.555), tiling)


def test_without_a_resolution_there_is_no_plan_unless_the_caller_gives_one(tiling: TilingSpec) -> None:
    with pytest.raises(MissingMpp, match="Give `mpp`"):
        plan_of(StripedSlide(None), tiling)

    plan = plan_of(StripedSlide(None), tiling, override=0.25)

    assert (plan.mpp, plan.mpp_source, plan.read_px) == (0.25, "override", 512)
