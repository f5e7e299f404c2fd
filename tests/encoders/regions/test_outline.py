"""What can be drawn on a slide, and what is refused, with words that say why."""

import math

import pytest

from encoders.errors import UnusableRegion
from encoders.regions.outline import MAX_CORNERS, Outline

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


@pytest.mark.parametrize(
    "corners",
    [
        SQUARE,
        SQUARE[::-1],
        [*SQUARE, SQUARE[0]],
        [(0, 0), (0, 0), *SQUARE[1:]],
        [(0, 0), (10, 0), (10, 10), (5, 0), (0, 10)],  # touches its upper edge
        [(0, 0), (10, 0), (20, 0), (10, 0), (10, 10), (0, 10)],  # a line drawn out and back
        [(math.cos(turn * 0.01) * 1e6, math.sin(turn * 0.01) * 1e6) for turn in range(600)],
    ],
)
def test_a_polygon_in_any_direction_is_taken(corners: list[tuple[float, float]]) -> None:
    assert len(Outline.of(corners).corners) >= 3


@pytest.mark.parametrize(
    ("corners", "said"),
    [
        ([(0, 0), (10, 10), (10, 0), (0, 10)], "crosses itself near x 5, y 5"),
        ([(0, 0), (10, 10), (20, 20)], "has no area"),
        ([(0, 0), (10, 0), (0, 0), (10, 0)], "has no area"),
        ([], "has no area"),
        ([(0, 0), (math.nan, 0), (10, 10)], "finite numbers"),
        ([(0, 0), (math.inf, 0), (10, 10)], "finite numbers"),
        ([(0, 0), (1e9, 0), (10, 10)], "finite numbers"),
        ([(0, 0, 0), (10, 0, 0), (10, 10, 0)], r"send \[x, y\]"),
        ([(x, x * x) for x in range(MAX_CORNERS + 1)], f"more than {MAX_CORNERS} corners"),
    ],
)
def test_what_is_no_simple_polygon_is_refused(corners: list[tuple[float, ...]], said: str) -> None:
    with pytest.raises(UnusableRegion, match=said):
        Outline.of(corners)


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (math.nan, 10)])
def test_a_rectangle_has_a_size(size: tuple[float, float]) -> None:
    with pytest.raises(UnusableRegion, match="above 0"):
        Outline.rectangle(0, 0, *size)


@pytest.mark.parametrize("place", [(100, 0), (0, 80), (-10, 0), (0, -10)])
def test_what_lies_beside_the_slide_is_refused(place: tuple[float, float]) -> None:
    with pytest.raises(UnusableRegion, match="outside the slide, which is 100 × 80"):
        Outline.rectangle(*place, 10, 10).require_touches(100, 80)


def test_what_reaches_beyond_the_slide_is_taken() -> None:
    Outline.rectangle(-50, -50, 60, 60).require_touches(100, 80)
    Outline.rectangle(90, 70, 600, 600).require_touches(100, 80)
    Outline.rectangle(900, 700, 10, 10).require_touches(None, None)
