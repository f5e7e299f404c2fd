import numpy as np
import pytest

from encoders.tiling.pictures.draw_legend import LEGEND_PX, NARROWEST_PX, bar_um, draw_legend
from encoders.tiling.pictures.draw_plan import PlanPicture, draw_plan, largest_picture
from encoders.tiling.pictures.overlay_style import PEN_RGB, TILE_RGB
from encoders.tiling.tissue.read_overview import Overview

GREY = 200


def drawing(
    *, size: tuple[int, int] = (700, 500), tile_px: float = 100.0, coords: list[list[int]] | None = None
) -> np.ndarray:
    """A grey slide of 2,800 × 2,000 px at 1/4: tissue in its left half, pen in the upper left corner."""
    tissue, pen = np.zeros((40, 56), dtype=np.bool_), np.zeros((40, 56), dtype=np.bool_)
    tissue[:, :28] = True
    pen[:10, :10] = True
    slide = Overview(np.full((size[1], size[0], 3), GREY, dtype=np.uint8), 2_800 / size[0])
    corners = np.array([[400, 800], [800, 800]] if coords is None else coords, dtype=np.int64).reshape(-1, 2)
    return draw_plan(slide, PlanPicture(tissue, pen, 50.0, corners, tile_px * 4, 0.25))


def test_tissue_is_tinted_and_the_rest_is_as_it_was() -> None:
    picture = drawing()

    tissue, glass = picture[300:490, 10:90], picture[10:490, 360:]
    assert (glass == GREY).all()
    assert (tissue == tissue[0, 0]).all()
    assert tissue[0, 0, 0] < tissue[0, 0, 1] < GREY
    # Still clearly the slide's own brightness.
    assert tissue[0, 0].min() > GREY * 0.8


def test_pen_is_hatched() -> None:
    corner = drawing()[5:100, 5:100]

    hatched = (corner == PEN_RGB).all(axis=-1)
    assert 0.2 < hatched.mean() < 0.6


def test_every_tile_is_outlined() -> None:
    picture = drawing()

    # Tiles at (100, 200) and (200, 200), 100 px a side: strong around both, faint between them.
    assert (picture[200, 110:290] == TILE_RGB).all()
    assert (picture[210:290, 100] == TILE_RGB).all()
    between = picture[210:290, 200].astype(int)
    assert (between == between[0]).all()
    assert (between < picture[250, 150] - 30).any()
    assert not (between[0] == TILE_RGB).all()
    assert (picture[250, 120:180] == picture[250, 120]).all()


def test_tiny_tiles_do_not_hide_the_slide() -> None:
    corners = [[x, y] for y in range(0, 1_200, 12) for x in range(1_600, 2_400, 12)]

    picture = drawing(tile_px=3.0, coords=corners)

    assert (picture[20:280, 420:580] == GREY).all()
    assert (picture[100, 398:403] == TILE_RGB).all(axis=-1).any()


def test_a_slide_that_cannot_be_planned_is_drawn_without_tiles() -> None:
    assert not (drawing(coords=[])[:500] == TILE_RGB).all(axis=-1).any()


@pytest.mark.parametrize("size", [(16, 12), (300, 2_000), (2_048, 2_008)])
def test_the_drawing_is_as_large_as_the_slide_and_its_legend(size: tuple[int, int]) -> None:
    picture = drawing(size=size)

    assert picture.shape == (size[1] + LEGEND_PX, max(size[0], NARROWEST_PX), 3)


def test_there_is_room_for_the_legend() -> None:
    assert largest_picture(640) == (640, 640 - LEGEND_PX)


@pytest.mark.parametrize(
    ("longest", "bar"), [(1.0, 1), (1.9, 1), (2.0, 2), (7.0, 5), (99.0, 50), (1_500.0, 1_000), (0.3, 0.2)]
)
def test_a_scale_bar_has_a_round_length(longest: float, bar: float) -> None:
    assert bar_um(longest) == pytest.approx(bar)


def test_without_a_resolution_there_is_no_scale_bar() -> None:
    right = np.s_[1:, 420:]

    assert (draw_legend(NARROWEST_PX, 12, None)[right] == 255).all()
    assert (draw_legend(NARROWEST_PX, 12, 4.0)[right] < 100).any()


def test_the_bar_is_as_long_as_it_says() -> None:
    strip = draw_legend(1_000, 5, 10.0)

    # A fifth of 10,000 µm: 2 mm are 200 px, up to 16 px from the right.
    dark = (strip[20] == 40).all(axis=-1)
    assert dark[784:985].all()
    assert not dark[777:784].any()
