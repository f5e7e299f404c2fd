"""Confused colour spaces are seen in the picture; no stain is taken for them."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.tiling.slide_readers.color_conflict import ColorConflict
from encoders.tiling.tissue.false_colors import check_colors

# Tissue without any glass: RGB, and the spread of it.
STAINS = {
    "H&E": (190, 120, 170),
    "strong eosin": (205, 80, 140),
    "DAB": (110, 65, 35),
    "pale haematoxylin": (185, 190, 215),
    "Masson's trichrome": (70, 90, 170),
    "AEC": (190, 90, 70),
    "blood": (200, 70, 60),
    "PAS": (170, 50, 120),
}


def picture(rgb: tuple[int, int, int], glass_share: float) -> NDArray[np.uint8]:
    """Stained tissue beside glass on the left, RGB [100, 200, 3]."""
    rng = np.random.default_rng(3)
    field = np.array(rgb) + rng.normal(0, 1, (100, 200, 1)) * 14 + rng.normal(0, 5, (100, 200, 3))
    field[:, : round(200 * glass_share)] = np.array([240, 238, 241]) + rng.normal(0, 1, (100, 1, 1))
    return np.asarray(np.clip(field, 0, 255), dtype=np.uint8)


def ycbcr_taken_for_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As a decoder gives it that believes a wrong header; OpenCV's order is Y, Cr, Cb."""
    return np.ascontiguousarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]], dtype=np.uint8)


def rgb_taken_for_ycbcr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB), dtype=np.uint8)


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("glass_share", [0.0, 0.02, 0.5])
def test_stains_are_believed(stain: str, glass_share: float) -> None:
    assert check_colors(picture(STAINS[stain], glass_share)) == ()


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("confused", [ycbcr_taken_for_rgb, rgb_taken_for_ycbcr])
def test_confused_colour_spaces_are_refused(stain: str, confused: object) -> None:
    assert callable(confused)
    with pytest.raises(ColorConflict, match="glass is strongly coloured"):
        check_colors(confused(picture(STAINS[stain], 0.4)))


@pytest.mark.parametrize("stain", STAINS)
def test_a_negative_is_refused_or_said(stain: str) -> None:
    negative = 255 - picture(STAINS[stain], 0.5)
    if stain in ("DAB", "pale haematoxylin", "Masson's trichrome"):  # their complements may be stains
        assert [it.code for it in check_colors(negative)] == ["colors_doubted"]
        return
    with pytest.raises(ColorConflict, match="inverted"):
        check_colors(negative)


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize(("level", "doubts"), [(0, []), (5, []), (30, ["colors_doubted"]), (70, ["colors_doubted"])])
def test_a_dark_fill_around_tissue_is_no_negative(stain: str, level: int, doubts: list[str]) -> None:
    filled = picture(STAINS[stain], 0.5)
    filled[:, :100] = level

    assert [it.code for it in check_colors(filled)] == doubts


def test_a_few_pixels_of_glass_or_what_was_not_scanned_make_no_other_picture() -> None:
    negative = 255 - picture(STAINS["H&E"], 0.5)
    negative[:30] = 255
    scanned = np.ones(negative.shape[:2], dtype=np.bool_)
    scanned[:30] = False

    assert check_colors(negative) == (), "glass is there"
    with pytest.raises(ColorConflict, match="inverted"):
        check_colors(negative, scanned)


def test_what_no_stain_is_is_refused_and_what_hardly_any_is_is_said() -> None:
    with pytest.raises(ColorConflict):
        check_colors(picture((20, 235, 15), 0))
    assert [it.code for it in check_colors(picture((45, 130, 205), 0))] == ["colors_doubted"]
    assert check_colors(picture((45, 130, 205), 0.2)) == (), "there is glass to compare with"


def test_glass_alone_is_no_fault() -> None:
    assert check_colors(picture((240, 238, 241), 1.0)) == ()
    assert check_colors(np.full((50, 50, 3), 255, dtype=np.uint8)) == ()
