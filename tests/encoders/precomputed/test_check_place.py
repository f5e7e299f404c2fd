"""Features that lie where the slide has tissue, and those that do not."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.errors import UnusableFeatures
from encoders.precomputed.check_place import check_place
from encoders.tiling.plan_tiles import plan_at_target
from encoders.types import TilePlan
from model_store.manifest import packaged_manifest

TILING = packaged_manifest("demo").first_input.tiling
SIDE = TILING.tile_px
TILES_ALONG = 40


def blot(column: int, row: int, width: int, height: int) -> NDArray[np.int64]:
    """Tiles of an ellipse around a tile of the slide's grid, in raster order."""
    y, x = np.mgrid[:TILES_ALONG, :TILES_ALONG]
    inside = ((x - column) / width) ** 2 + ((y - row) / height) ** 2 <= 1
    return np.stack([x[inside], y[inside]], axis=1).astype(np.int64) * SIDE


# Pieces without symmetry, a tenth of the slide.
TISSUE = np.unique(np.concatenate([blot(9, 12, 4, 9), blot(27, 30, 9, 3), blot(20, 5, 3, 2)]), axis=0)
PLAN = replace(plan_at_target(TILING, TISSUE), width=TILES_ALONG * SIDE, height=TILES_ALONG * SIDE)
STEPS = np.array([[0, 0], [SIDE, 0], [-SIDE, 0], [0, SIDE], [0, -SIDE]])
ALL = blot(0, 0, 100, 100)
MOST = TILES_ALONG * SIDE - SIDE


def doubts(coords: NDArray[np.int64], side: float = SIDE, plan: TilePlan = PLAN) -> list[str]:
    warnings = check_place(coords, side, plan)
    assert all(it.code == "features_doubted" and len(it.detail) <= 300 for it in warnings)
    return [it.detail for it in warnings]


def test_features_of_the_slide_are_believed_whatever_tool_found_the_tissue() -> None:
    without_rim = np.array([it for it in TISSUE if all((it + step == TISSUE).all(1).any() for step in STEPS)])
    with_rim = np.unique(np.concatenate([TISSUE + step for step in STEPS]), axis=0)
    on_its_own_grid = TISSUE + np.where(TISSUE[:, :1] < 18 * SIDE, 37, 150)
    for coords in (TISSUE, without_rim, with_rim[(with_rim >= 0).all(axis=1)], on_its_own_grid, TISSUE[:10]):
        assert doubts(coords) == []


@pytest.mark.parametrize(
    ("coords", "how"),
    [
        (TISSUE[:, ::-1], "swapped"),
        (TISSUE * [-1, 1] + [MOST, 0], "mirrored in x"),
        (TISSUE * [1, -1] + [0, MOST], "mirrored in y"),
        (MOST - TISSUE, "turned by 180°"),
        (MOST - TISSUE[:, ::-1], "swapped and turned by 180°"),
    ],
)
def test_turned_features_are_refused_and_told_how(coords: NDArray[np.int64], how: str) -> None:
    with pytest.raises(UnusableFeatures, match=f"only when `coords` are {how}"):
        check_place(coords, SIDE, PLAN)


def test_features_beside_the_tissue_are_another_slides() -> None:
    with pytest.raises(
        UnusableFeatures, match="not of this slide: 100% of their tiles lie beside its tissue, and 100%"
    ):
        check_place(blot(30, 8, 6, 6), SIDE, PLAN)


def test_half_of_the_tissue_is_doubted() -> None:
    (half,) = doubts(TISSUE[TISSUE[:, 1] < 20 * SIDE])

    assert half.startswith("The features leave out 3")


def test_tiles_of_the_whole_slide_are_doubted() -> None:
    (glass,) = doubts(ALL)

    assert "of the features' tiles lie where the slide shows no tissue" in glass


def test_centres_are_doubted() -> None:
    (centres,) = doubts(TISSUE + SIDE // 2)

    assert "as the centres of tiles do" in centres
