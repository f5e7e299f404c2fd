"""What a level's size says about its scale."""

import pytest

from encoders.tiling.slide_readers.level_scales import Size, possible_downsamples


@pytest.mark.parametrize(
    ("full", "level", "tile", "first"),
    [
        ((2560, 3072), (640, 768), (256, 256), 4.0),
        ((2220, 2967), (1110, 1483), (240, 240), 2.0),
        ((1000, 800), (400, 320), None, 2.5),
        # Philips: every level is filled up to whole tiles, level 0 too.
        ((2560, 3072), (1536, 1536), (512, 512), 2.0),
        ((2560, 3072), (1024, 1024), (512, 512), 4.0),
        ((5120, 6144), (3072, 3072), (1024, 1024), 2.0),
        ((5120, 6144), (1024, 1024), (1024, 1024), 8.0),
        ((2560, 2560), (1536, 1536), (512, 512), 2.0),
    ],
)
def test_the_likeliest_scale_comes_first(full: Size, level: Size, tile: Size | None, first: float) -> None:
    assert possible_downsamples(full, level, tile)[0] == pytest.approx(first)


def test_a_level_of_one_tile_leaves_its_scale_open() -> None:
    found = possible_downsamples((2560, 3072), (512, 512), (512, 512))

    assert found[:3] == (8.0, 16.0, 32.0)
    assert {9.0, 27.0} <= set(found)


@pytest.mark.parametrize("level", [(400, 180), (640, 600), (1280, 768)])
def test_sides_that_disagree_have_no_scale(level: Size) -> None:
    assert possible_downsamples((2560, 3072), level, (256, 256)) == ()
