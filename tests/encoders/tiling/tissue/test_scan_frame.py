import numpy as np
import pytest

from encoders.tiling.tissue.scan_frame import find_frame

GLASS = (243, 242, 244)


def glass() -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 1.2, (120, 160, 3))
    return np.clip(np.array(GLASS) + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("colour", [(0, 0, 0), (6, 7, 5), (40, 40, 40), (70, 66, 64)])
def test_a_dark_smooth_area_along_a_side_is_the_frame(colour: tuple[int, int, int]) -> None:
    picture = glass()
    picture[:20] = colour
    picture[:, 140:] = colour

    frame = find_frame(picture)

    assert frame[:20].all()
    assert frame[:, 140:].all()
    # With the pixel next to it, which is half lit in a reduced picture.
    assert not frame[21:, :139].any()


def test_pure_black_is_not_lit_wherever_it_lies() -> None:
    picture = glass()
    picture[50:60, 50:60] = 0

    assert find_frame(picture)[50:60, 50:60].all()


def test_a_stroke_of_black_ink_to_the_edge_is_no_frame() -> None:
    picture = glass()
    picture[:60, 70:90] = (50, 45, 55)

    assert not find_frame(picture).any()


def test_dark_tissue_along_a_side_is_no_frame() -> None:
    picture = glass()
    picture[:40] = np.random.default_rng(2).integers(20, 85, (40, 160, 1))

    assert not find_frame(picture).any()
