"""Where regions lie, on overviews that are drawn so that the answer can be said."""

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.errors import SlideTooLarge
from encoders.hierarchical import plan_regions as module
from encoders.hierarchical.plan_regions import plan_regions

# An overview of which a pixel covers 64 level-0 pixels a side; a region is 64 of its pixels wide.
SCALE = 64
# By what the level that grids step by is smaller than the slide.
LEVEL0, HALF, QUARTER = 1, 2, 4
# A closing with an even square moves everything down and to the right.
MOVED = 1


def glass(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 240, np.uint8)


def tissue(picture: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
    picture[top:bottom, left:right] = (190, 120, 170)
    return picture


def planned(picture: NDArray[np.uint8], step: int = LEVEL0) -> list[list[int]]:
    height, width = (side * SCALE for side in picture.shape[:2])
    got = plan_regions(picture, width, height, (width // step, height // step))
    assert got.dtype == np.int64
    assert got.shape[1:] == (2,)
    return [[x // SCALE - MOVED, y // SCALE - MOVED] for x, y in got.tolist()]


def test_a_grid_begins_at_the_tissues_corner_and_goes_down_before_it_goes_right() -> None:
    picture = tissue(glass(400, 400), 50, 30, 50 + 128, 30 + 128)
    # The median rounds off corners, the sides stay.
    assert planned(picture) == [[50, 30], [50, 94], [114, 30], [114, 94]]


def test_the_lower_tissue_comes_first() -> None:
    picture = tissue(tissue(glass(400, 450), 20, 20, 110, 110), 150, 300, 240, 390)
    assert planned(picture, HALF) == [[150, 300], [20, 20]]


def test_a_single_region() -> None:
    assert planned(tissue(glass(200, 200), 60, 70, 160, 170), HALF) == [[60, 70]]


def test_a_step_of_a_level_is_wider_and_what_is_read_stays() -> None:
    picture = tissue(glass(800, 800), 10, 10, 10 + 512, 10 + 256)
    assert planned(picture, QUARTER) == [[10, 10], [266, 10]]


def test_a_region_that_crosses_the_edge_is_left_out() -> None:
    picture = tissue(glass(200, 200), 60, 100, 200, 200)
    # Of two columns and two rows only the first fit: 200 - 64 = 136.
    assert planned(picture) == [[60, 100], [124, 100]]


def test_tissue_that_is_nowhere_a_whole_region_from_the_edge_gives_none() -> None:
    assert planned(tissue(glass(200, 200), 140, 20, 200, 200)) == []


def test_a_slide_that_is_smaller_than_a_region_gives_none() -> None:
    assert planned(tissue(glass(60, 200), 0, 0, 60, 200)) == []


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_no_tissue_gives_no_region(grey: int) -> None:
    assert planned(np.full((100, 120, 3), grey, np.uint8)) == []


def test_specks_are_no_tissue() -> None:
    # A unit is 64 pixels here, and more than 100 units are needed.
    assert planned(tissue(glass(400, 400), 50, 50, 130, 130)) == []
    assert len(planned(tissue(glass(400, 400), 50, 50, 132, 132))) == 4


def test_a_region_whose_middle_lies_in_a_large_hole_is_left_out() -> None:
    picture = tissue(glass(500, 500), 50, 50, 50 + 192, 50 + 192)
    assert len(planned(picture)) == 9
    picture[50 + 64 + 10 : 50 + 128 - 10, 50 + 64 + 10 : 50 + 128 - 10] = 240
    regions = planned(picture)
    assert len(regions) == 8
    assert [114, 114] not in regions


def test_a_small_hole_is_not_seen() -> None:
    picture = tissue(glass(500, 500), 50, 50, 50 + 192, 50 + 192)
    picture[140:152, 140:152] = 240
    assert len(planned(picture)) == 9


def test_only_the_eight_largest_holes_count() -> None:
    picture = tissue(glass(900, 900), 50, 50, 50 + 640, 50 + 640)
    for i in range(9):
        # The ninth, in the last diagonal region but one, is the smallest.
        half = 24 if i < 8 else 20
        middle = 50 + 64 * i + 32
        picture[middle - half : middle + half, middle - half : middle + half] = 240
    regions = planned(picture)
    assert len(regions) == 92
    assert [[50 + 64 * i] * 2 in regions for i in range(9)] == [False] * 8 + [True]


def test_regions_of_two_tissues_may_overlap() -> None:
    # A bent tissue, and another in its bend: their bounding boxes overlap.
    picture = tissue(tissue(glass(500, 500), 40, 40, 80, 360), 40, 40, 360, 80)
    regions = planned(tissue(picture, 100, 100, 228, 228))
    assert [40, 40] in regions
    assert [100, 100] in regions
    assert len(regions) == len({tuple(region) for region in regions})


def test_many_regions() -> None:
    picture = tissue(glass(1800, 1600), 4, 4, 1796, 1540)
    regions = planned(picture)
    assert len(regions) == 28 * 24
    assert regions == sorted(regions)


def test_a_sides_scale_is_its_own() -> None:
    picture = tissue(glass(400, 400), 60, 70, 220, 300)
    got = plan_regions(picture, 400 * 64, 400 * 32, (400 * 64, 400 * 32))
    assert got[:2].tolist() == [[61 * 64, 71 * 32], [61 * 64, 71 * 32 + 4096]]


def test_a_picture_that_cannot_be_written_to_or_is_a_part_of_another_is_taken() -> None:
    picture = tissue(glass(200, 200), 60, 70, 160, 170)
    assert len(planned(picture)) == 4
    part = np.concatenate([picture, picture], axis=1)[:, :200]
    part.flags.writeable = False
    assert planned(part) == planned(picture)


def test_an_overview_that_the_published_code_gives_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OVERVIEW_PX", 9_999)
    with pytest.raises(SlideTooLarge, match="more levels"):
        plan_regions(glass(100, 100), 6400, 6400, (1600, 1600))


@pytest.mark.parametrize(
    ("overview", "step_level"),
    [
        (np.zeros((10, 10), np.uint8), (640, 640)),
        (np.zeros((10, 10, 4), np.uint8), (640, 640)),
        (np.zeros((10, 10, 3), np.float32), (640, 640)),
        (np.zeros((0, 10, 3), np.uint8), (640, 640)),
        (np.zeros((10, 10, 3), np.uint8), (0, 640)),
        (np.zeros((10, 10, 3), np.uint8), (640, 6400)),
    ],
)
def test_what_is_no_overview_is_refused(overview: NDArray[np.generic], step_level: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"overview|sides|larger"):
        plan_regions(overview, 640, 640, step_level)  # type: ignore[arg-type]
