"""Ink of four colours on drawn slides is flagged where it lies; H&E, drawn and real, is not."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.tissue.find_tissue import find_tissue
from encoders.tiling.tissue.pen_marks import find_pen, pen_share
from encoders.tiling.tissue.read_overview import read_overview
from synthetic.artefacts import INKS
from synthetic.synthetic_slide import SyntheticSlide

LIMITS = ReaderLimits()
# Transmittance of R, G, B. The drawn slides have no red.
INK_COLOURS = {"green": INKS[0], "blue": INKS[1], "black": INKS[2], "red": (0.92, 0.08, 0.10)}


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """2.0 × 1.6 mm of a drawn slide without artefacts at 8 µm/px."""
    drawn = SyntheticSlide(seed=5, width_px=2048, height_px=1600, mpp=1.0)
    assert drawn.layout.pen is None
    return cv2.resize(drawn.draw(0, 0, 2048, 1600), (256, 200), interpolation=cv2.INTER_AREA)


def inked(picture: np.ndarray, ink: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The picture under a stroke across glass and tissue, 10 px wide, and where the stroke is."""
    stroke = np.zeros(picture.shape[:2], dtype=np.uint8)
    cv2.polylines(stroke, [np.array([[10, 30], [90, 110], [170, 100], [240, 180]])], False, 255, 10)
    covered = stroke > 0
    marked = picture.copy()
    marked[covered] = (picture[covered] * np.array(ink)).round()
    return marked, covered


@pytest.mark.parametrize("name", INK_COLOURS)
def test_a_stroke_is_found_on_glass_and_on_tissue_and_nothing_beside_it(tissue: np.ndarray, name: str) -> None:
    picture, covered = inked(tissue, INK_COLOURS[name])

    pen = find_pen(picture)

    under = find_tissue(tissue) & covered
    assert under.sum() > 300
    assert pen[covered].mean() > 0.9
    assert pen[under].mean() > 0.8
    assert not pen[~covered].any()


@pytest.mark.parametrize("name", INK_COLOURS)
def test_pen_is_flagged_and_still_counts_as_tissue(tissue: np.ndarray, name: str) -> None:
    picture, covered = inked(tissue, INK_COLOURS[name])

    found = find_tissue(picture)

    assert found[covered].mean() > 0.95
    share = pen_share(find_pen(picture), found)
    assert share == pytest.approx(covered.sum() / found.sum(), rel=0.1)


@pytest.mark.parametrize("seed", [3, 16, 26])
def test_the_drawn_slides_own_pen_is_found(seed: int) -> None:
    slide = SyntheticSlide(seed=seed, width_px=2304, height_px=1920, mpp=1.0)
    assert slide.layout.pen is not None
    truth = np.zeros((1920, 2304), dtype=np.uint8)
    slide.layout.pen.paint(truth, (0.0, 0.0), 1.0, 255)
    covered = cv2.resize(truth, (288, 240), interpolation=cv2.INTER_AREA) == 255

    pen = find_pen(cv2.resize(slide.draw(0, 0, 2304, 1920), (288, 240), interpolation=cv2.INTER_AREA))

    assert pen[covered].mean() > 0.95
    assert not pen[~cv2.dilate(covered.astype(np.uint8), np.ones((5, 5))).astype(bool)].any()


@pytest.mark.parametrize("seed", range(6, 12))
def test_drawn_tissue_of_any_stain_is_not_pen(seed: int) -> None:
    slide = SyntheticSlide(seed=seed, width_px=2304, height_px=1920, mpp=1.0)
    assert slide.layout.pen is None

    assert not find_pen(cv2.resize(slide.draw(0, 0, 2304, 1920), (288, 240), interpolation=cv2.INTER_AREA)).any()


@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395-ts1.svs"])
@pytest.mark.parametrize("px_level0", [8, 14, 16, 28])
def test_real_tissue_is_not_pen(shared_slides: Path, name: str, px_level0: int) -> None:
    reader = open_reader(shared_slides / name, LIMITS).reader

    assert not find_pen(read_overview(reader, px_level0, px_level0, LIMITS).pixels).any()


def test_specks_of_a_pens_colour_are_not_pen(tissue: np.ndarray) -> None:
    picture = tissue.copy()
    picture[20:180:20, 20:240:20] = (20, 120, 60)
    picture[21:180:20, 20:240:20] = (20, 120, 60)

    assert not find_pen(picture).any()


def test_without_tissue_no_share_of_it_is_pen() -> None:
    nothing = np.zeros((4, 4), dtype=np.bool_)

    assert pen_share(nothing, nothing) == 0
