import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.errors import MissingMpp, NoTissue, ResolutionTooLow, SlideTooLarge
from encoders.tiling.plan_tiles import AreaMask, choose_scale, plan_tiles, stride_px_level0
from encoders.tiling.resolution import effective_mpp
from encoders.tiling.slide_readers.slide_reader import Level
from encoders.types import SlideFacts, TilePlan
from model_store.contracts.tile_encoder import TilingSpec


def tiling_of(target_mpp: float = 0.5, tile_px: int = 256, min_tissue_fraction: float = 0.1) -> TilingSpec:
    return TilingSpec(
        target_mpp=target_mpp,
        tile_px=tile_px,
        min_tissue_fraction=min_tissue_fraction,
        order="raster",
        tissue_rule="otsu-guarded-v2",
    )


def pyramid(width: int, height: int, downsamples: tuple[float, ...]) -> list[Level]:
    return [Level(int(width / step), int(height / step), step) for step in downsamples]


def plan_of(facts: SlideFacts, mask: AreaMask, tiling: TilingSpec, levels: list[Level]) -> TilePlan:
    scale = choose_scale(levels, effective_mpp(facts, None), tiling)
    return plan_tiles(facts, scale, mask, tiling, mpp_override=None, max_tiles=100_000)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 20_000),
    height=st.integers(1, 20_000),
    mpp=st.floats(0.1, 0.55),
    steps=st.lists(st.floats(1.5, 70), max_size=3),
    mask_px=st.floats(4, 90),
    seed=st.integers(0, 1_000),
)
def test_tiles_are_in_raster_order_inside_the_slide_and_never_overlap(
    width: int, height: int, mpp: float, steps: list[float], mask_px: float, seed: int
) -> None:
    facts = SlideFacts("aperio", width, height, mpp, 40.0)
    levels = pyramid(width, height, (1.0, *sorted(step for step in steps if step < min(width, height))))
    shape = (math.ceil(height / mask_px), math.ceil(width / mask_px))
    mask = AreaMask(np.random.default_rng(seed).random(shape) < 0.3, mask_px)
    tiling = tiling_of()

    try:
        plan = plan_of(facts, mask, tiling, levels)
    except NoTissue:
        return

    x, y = plan.coords.T
    assert np.array_equal(plan.coords, plan.coords[np.lexsort((x, y))])
    assert plan.coords.min() >= 0
    assert (x + plan.tile_px_level0 <= width + 1e-3).all()
    assert (y + plan.tile_px_level0 <= height + 1e-3).all()
    stride = stride_px_level0(plan.tile_px_level0)
    assert (plan.coords % stride == 0).all()
    assert 0 <= stride - plan.tile_px_level0 + 1e-6 < 1.001
    assert len(np.unique(plan.coords, axis=0)) == len(plan.coords)
    # Half a pixel of rounding, and 1 % for a level taken as it is.
    covered_um = plan.tile_px_level0 * mpp
    assert abs(covered_um - 128) <= 128 * 0.0101 + levels[plan.level].downsample * mpp


@pytest.mark.parametrize(
    ("mpp", "downsamples", "level", "read_px", "side"),
    [
        (0.5, (1.0, 4.0), 0, 256, 256.0),
        (0.499, (1.0,), 0, 256, 256.0),
        (0.25, (1.0, 4.0, 16.0), 0, 512, 512.0),
        (0.25, (1.0, 2.0, 4.0), 1, 256, 512.0),
        (0.2505, (1.0, 2.0), 1, 256, 512.0),
        (0.2282, (1.0, 4.0), 0, 561, 561.0),
        (0.1, (1.0, 4.016), 1, 319, 319 * 4.016),
        (0.54, (1.0,), 0, 237, 237.0),
    ],
)
def test_the_level_at_the_target_is_taken_as_it_is_else_the_next_finer_one_is_reduced(
    mpp: float, downsamples: tuple[float, ...], level: int, read_px: int, side: float
) -> None:
    scale = choose_scale(pyramid(50_000, 40_000, downsamples), mpp, tiling_of())

    assert (scale.level, scale.read_px, scale.tile_px_level0) == (level, read_px, side)


def test_a_slide_more_than_a_tenth_coarser_than_the_target_is_refused_not_enlarged() -> None:
    with pytest.raises(ResolutionTooLow, match=r"0\.6 µm/px"):
        choose_scale(pyramid(5_000, 4_000, (1.0,)), 0.6, tiling_of())


def test_the_tissue_share_of_a_tile_is_exact_where_its_edge_cuts_mask_pixels() -> None:
    facts = SlideFacts("aperio", 512, 256, 0.5, None)
    # 3 mask pixels of 100 px: the third lies 56 px in the first tile and 44 in the second, 0.171875 of it.
    mask = AreaMask(np.array([[False, False, True, False, False, False]] * 3), 100.0)

    first_only = plan_of(facts, mask, tiling_of(min_tissue_fraction=0.1719), pyramid(512, 256, (1.0,)))
    both = plan_of(facts, mask, tiling_of(min_tissue_fraction=0.1718), pyramid(512, 256, (1.0,)))

    assert first_only.coords.tolist() == [[0, 0]]
    assert both.coords.tolist() == [[0, 0], [256, 0]]


def test_a_tile_without_any_tissue_is_left_out_even_at_fraction_zero() -> None:
    facts = SlideFacts("aperio", 512, 256, 0.5, None)
    mask = AreaMask(np.array([[True, False]]), 256.0)

    plan = plan_of(facts, mask, tiling_of(min_tissue_fraction=0.0), pyramid(512, 256, (1.0,)))

    assert plan.coords.tolist() == [[0, 0]]


def test_less_than_one_whole_tile_is_no_tissue() -> None:
    facts = SlideFacts("aperio", 300, 255, 0.5, None)

    with pytest.raises(NoTissue, match="smaller than one tile"):
        plan_of(facts, AreaMask(np.ones((1, 1), dtype=np.bool_), 300.0), tiling_of(), pyramid(300, 255, (1.0,)))


def test_a_blank_slide_is_no_tissue() -> None:
    facts = SlideFacts("aperio", 3_000, 3_000, 0.5, None)

    with pytest.raises(NoTissue, match="No tissue"):
        plan_of(facts, AreaMask(np.zeros((50, 50), dtype=np.bool_), 64.0), tiling_of(), pyramid(3_000, 3_000, (1.0,)))


def test_more_tiles_than_allowed_are_refused() -> None:
    facts = SlideFacts("aperio", 2_560, 2_560, 0.5, None)
    scale = choose_scale(pyramid(2_560, 2_560, (1.0,)), 0.5, tiling_of())
    mask = AreaMask(np.ones((10, 10), dtype=np.bool_), 256.0)

    with pytest.raises(SlideTooLarge, match="100 tiles"):
        plan_tiles(facts, scale, mask, tiling_of(), mpp_override=None, max_tiles=99)


@pytest.mark.parametrize("override", [0.0, -0.5, 0.01, 352.8, math.nan, math.inf])
def test_an_absurd_override_is_refused(override: float) -> None:
    with pytest.raises(MissingMpp, match=r"between 0\.05 and 4"):
        effective_mpp(SlideFacts("aperio", 10, 10, 0.5, None), override)


def test_an_override_wins_over_the_slides_own_resolution() -> None:
    assert effective_mpp(SlideFacts("aperio", 10, 10, 28.97, None), 0.5) == 0.5
