import pytest

from encoders.tiling.slide_readers.tile_spans import tile_spans


def flat(start: int, count: int, tile_px: int = 10, image_px: int = 34) -> list[tuple[int, range, range, bool, bool]]:
    return [
        (
            span.tile,
            range(span.in_tile.start, span.in_tile.stop),
            range(span.in_region.start, span.in_region.stop),
            span.is_whole,
            span.is_all_inside,
        )
        for span in tile_spans(start, count, tile_px, image_px)
    ]


def test_a_region_on_the_grid_has_whole_tiles() -> None:
    assert flat(10, 20) == [(1, range(10), range(10), True, True), (2, range(10), range(10, 20), True, True)]


def test_a_region_between_the_grid_has_parts() -> None:
    assert flat(7, 6) == [(0, range(7, 10), range(3), False, False), (1, range(3), range(3, 6), False, False)]


def test_the_last_tile_is_all_inside_though_not_whole() -> None:
    assert flat(25, 20) == [(2, range(5, 10), range(5), False, False), (3, range(4), range(5, 9), False, True)]


def test_what_lies_before_the_image_is_left_out() -> None:
    assert flat(-4, 6) == [(0, range(2), range(4, 6), False, False)]


@pytest.mark.parametrize("start", [-6, 34, 100])
def test_a_region_outside_has_no_tiles(start: int) -> None:
    assert flat(start, 6) == []


def test_every_pixel_of_the_image_is_there_once() -> None:
    for start in range(-12, 40):
        for count in range(1, 30):
            found = [
                (span.tile * 10 + in_tile, in_region + start)
                for span in tile_spans(start, count, 10, 34)
                for in_tile, in_region in zip(
                    range(span.in_tile.start, span.in_tile.stop),
                    range(span.in_region.start, span.in_region.stop),
                    strict=True,
                )
            ]
            inside = range(max(start, 0), min(start + count, 34))
            assert found == [(pixel, pixel) for pixel in inside]
