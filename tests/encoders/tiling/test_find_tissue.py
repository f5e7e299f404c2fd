import numpy as np
import pytest

from encoders.tiling.find_tissue import find_tissue

GLASS = (243, 242, 244)
EOSIN = (225, 170, 205)
PALE_EOSIN = (240, 215, 228)
RNG = np.random.default_rng(0)


def noisy(colour: tuple[int, int, int], noise: float = 1.2) -> np.ndarray:
    field = np.array(colour) + RNG.normal(0, noise, (120, 160, 3))
    return np.clip(field, 0, 255).round().astype(np.uint8)


def test_tissue_on_glass_is_found_and_nothing_else() -> None:
    picture = noisy(GLASS)
    picture[30:80, 40:110] = noisy(EOSIN)[30:80, 40:110]

    tissue = find_tissue(picture)

    expected = np.zeros(tissue.shape, dtype=bool)
    expected[30:80, 40:110] = True
    assert np.array_equal(tissue, expected)


def test_pale_tissue_is_found_by_its_colour() -> None:
    picture = noisy(GLASS)
    picture[30:80, 40:110] = noisy(PALE_EOSIN)[30:80, 40:110]

    assert find_tissue(picture)[30:80, 40:110].mean() > 0.95


@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (250, 245, 225), (200, 200, 200), (0, 0, 0)])
@pytest.mark.parametrize("noise", [0.0, 1.2, 2.5])
def test_an_empty_slide_has_none_although_otsu_always_finds_a_foreground(
    glass: tuple[int, int, int], noise: float
) -> None:
    assert not find_tissue(noisy(glass, noise)).any()


def test_one_pixel_is_an_overview_too() -> None:
    assert not find_tissue(np.full((1, 1, 3), 200, dtype=np.uint8)).any()
