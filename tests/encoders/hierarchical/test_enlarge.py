"""Whole-number enlargement against Pillow itself."""

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.hierarchical.enlarge import enlarge


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        (256, 256, 448),
        (224, 224, 448),
        (17, 31, 100),
        (1, 1, 5),
        (2, 3, 7),
        (3, 64, 64),
        (448, 448, 448),
        (97, 97, 40),
        (300, 300, 1),
        (40, 90, 60),
    ],
)
def test_it_is_pillows_bicubic_to_the_last_bit(height: int, width: int, side: int) -> None:
    rng = np.random.default_rng(height * 1000 + width)
    # Black and white beside each other overshoot: what each pass clips has to be clipped in it.
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    hard = rng.choice(np.array([0, 255], np.uint8), (height, width, 3))
    pictures = np.stack([noise, hard, np.full_like(noise, 255), np.zeros_like(noise)])
    got = enlarge(torch.from_numpy(pictures), side).numpy()
    want = [np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC)) for p in pictures]
    assert np.array_equal(got, np.stack(want))


def test_pictures_do_not_see_each_other() -> None:
    pictures = torch.randint(0, 256, (3, 20, 20, 3), dtype=torch.uint8)
    assert torch.equal(enlarge(pictures, 33)[1:2], enlarge(pictures[1:2], 33))


def test_no_pictures_are_no_pictures() -> None:
    assert enlarge(torch.zeros(0, 256, 256, 3, dtype=torch.uint8), 448).shape == (0, 448, 448, 3)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 8, 8, 3), torch.float32), ((8, 8, 3), torch.uint8), ((1, 0, 8, 3), torch.uint8)]
)
def test_what_are_no_pictures_is_refused(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="uint8"):
        enlarge(torch.zeros(shape, dtype=dtype), 16)


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="0 px"):
        enlarge(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), 0)
