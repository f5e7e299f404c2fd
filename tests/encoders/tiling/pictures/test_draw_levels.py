from dataclasses import replace
from typing import Any

import numpy as np
from drawn_levels import drawn_levels
from numpy.typing import NDArray

from encoders.hierarchical.cell_kinds import CELL_KINDS, CELL_RGB
from encoders.hierarchical.levels import FoundCells
from encoders.tiling.pictures.draw_legend import LEGEND_PX, NARROWEST_PX
from encoders.tiling.pictures.draw_levels import (
    FIRST_RANK_RGB,
    LAST_RANK_RGB,
    REGION_RGB,
    LevelsPicture,
    draw_levels,
)

GREY = 200
LEVELS = drawn_levels(region_grid=(2, 1), chosen=3, cells_per_patch=6)


def picture_of(**changes: Any) -> LevelsPicture:
    assert LEVELS.cells is not None
    counts = np.bincount(LEVELS.cells.kind, minlength=len(CELL_KINDS))
    whole = LevelsPicture(
        LEVELS.region_coords, range(2), 1024, LEVELS.patch_coords(), 256, LEVELS.cells, counts, mpp=0.25
    )
    return replace(whole, **changes)


def drawing(px_level0: float, **changes: Any) -> NDArray[np.uint8]:
    width, height = round(3072 / px_level0), round(2048 / px_level0)
    return draw_levels(np.full((height, width, 3), GREY, np.uint8), (0, 0), px_level0, picture_of(**changes))


def drawn_in(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((picture == colour).all(axis=-1))


def test_regions_and_patches_lie_where_they_are_on_the_slide() -> None:
    corners = LEVELS.region_coords[:, None].astype(np.int64) + np.array([[256, 256], [512, 512]])
    picture = drawing(2.0, patches=corners, cells=None)[:1024]

    # Regions from 512, 1024 px a side, at half the size; lines are two pixels wide.
    assert drawn_in(picture, REGION_RGB)[300:700, 256].all()
    assert drawn_in(picture, REGION_RGB)[256, 300:1200].all()
    for left in (256, 768):
        for shift, colour in ((128, FIRST_RANK_RGB), (256, LAST_RANK_RGB)):
            assert drawn_in(picture, colour)[256 + shift, left + shift + 3 : left + shift + 120].all()
            assert drawn_in(picture, colour)[256 + shift + 3 : 256 + shift + 100, left + shift].all()
            assert (picture[256 + shift + 5 : 256 + shift + 90, left + shift + 5 : left + shift + 90] == GREY).all()
    # The slide is as it was where there is nothing.
    assert (picture[:250] == GREY).all()


def test_cells_go_through_the_middles_of_their_pixels_in_the_colour_of_their_kind() -> None:
    square = np.array([[1000, 800], [1020, 800], [1020, 820], [1000, 820]], np.int32)
    cells = FoundCells(
        patch=np.zeros(1, np.int32),
        centroid=np.array([[1010, 810]], np.float32),
        kind=np.array([4], np.uint8),
        outline_start=np.array([0, 4]),
        outline=square,
    )
    only = picture_of(patches=np.array([[[900, 700]]], np.int64), regions=LEVELS.region_coords[:1], numbers=[0])
    own = draw_levels(np.full((2048, 3072, 3), GREY, np.uint8), (0, 0), 1.0, replace(only, cells=cells))
    half = draw_levels(np.full((1024, 1536, 3), GREY, np.uint8), (0, 0), 2.0, replace(only, cells=cells))

    assert drawn_in(own, CELL_RGB["dead"])[805:816, 1000].all()
    assert drawn_in(own, CELL_RGB["dead"])[800, 1005:1016].all()
    assert (own[804:817, 1004:1017] == GREY).all()
    assert (half[403:407, 503:507] == GREY).all()
    assert np.abs(half[405, 499:502].astype(int) - CELL_RGB["dead"]).sum(axis=1).min() < 150


def test_what_is_too_small_is_left_out_and_said_below() -> None:
    far = drawing(64.0)

    assert far.shape[1] == NARROWEST_PX
    picture = far[:32, :48]
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    assert not colours & set(CELL_RGB.values())
    assert {(GREY,) * 3, REGION_RGB, FIRST_RANK_RGB, LAST_RANK_RGB} <= colours


def test_the_legend_has_as_many_rows_as_its_words_need() -> None:
    narrow, wide = drawing(8.0), drawing(2.0)

    assert wide.shape == (1024 + 3 * LEGEND_PX, 1536, 3)
    assert narrow.shape == (256 + 5 * LEGEND_PX, NARROWEST_PX, 3)
    for colour in CELL_RGB.values():
        assert drawn_in(wide[1024:], colour).sum() > 50
    # Nothing is cut at the right.
    assert (narrow[256:, -8:] == 255).all()


def test_cells_that_nobody_knows_are_not_in_the_legend() -> None:
    unknown = drawing(2.0, cells=None, cell_counts=None)

    assert unknown.shape[0] == 1024 + 2 * LEGEND_PX
    # The grey of the unclassified is that of antialiased letters too.
    assert not any(drawn_in(unknown, colour).any() for kind, colour in CELL_RGB.items() if kind != "unclassified")


def test_a_part_of_the_slide_begins_at_its_own_corner() -> None:
    assert LEVELS.cells is not None
    x, y = LEVELS.region_coords[1].tolist()
    only = picture_of(regions=LEVELS.region_coords[1:], numbers=[1], patches=LEVELS.patch_coords()[1:])

    part = draw_levels(np.full((1024, 1024, 3), GREY, np.uint8), (x, y), 1.0, only)

    assert drawn_in(part, REGION_RGB)[40:1000, 0].all()
    assert drawn_in(part, REGION_RGB)[40:1000, 1023].all()
