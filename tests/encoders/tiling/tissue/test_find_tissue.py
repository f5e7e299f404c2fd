from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.first_tissue_rule import find_tissue_v1
from benchmarks.tissue_scenes import SCENES, Scene, draw_scene, overlap
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.tissue.find_tissue import find_tissue
from encoders.tiling.tissue.read_overview import read_overview

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


def rule_of_v1(rgb: np.ndarray) -> np.ndarray:
    """The first rule, before frames, pen and slides without glass were thought of."""
    luminance = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
    threshold, _ = cv2.threshold(luminance, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = luminance > threshold
    darker = luminance < np.median(luminance[bright]) - 15
    coloured = saturation > np.median(saturation[bright]) + 15
    return ~bright & (darker | coloured)


@pytest.mark.parametrize(("name", "px"), [("cmu-1-small-region.svs", 14), ("tcga-cr-7395-ts1.svs", 28)])
def test_on_an_ordinary_slide_the_rule_is_what_it_always_was(shared_slides: Path, name: str, px: int) -> None:
    limits = ReaderLimits()
    picture = read_overview(open_reader(shared_slides / name, limits).reader, px, px, limits).pixels

    assert np.array_equal(find_tissue(picture), rule_of_v1(picture))


@pytest.mark.parametrize("colour", [EOSIN, (150, 90, 160), (200, 120, 170)])
def test_a_slide_without_any_glass_is_all_tissue(colour: tuple[int, int, int]) -> None:
    assert find_tissue(noisy(colour, 6)).mean() > 0.99


def test_a_sliver_of_glass_in_a_slide_of_tissue_is_not_tissue() -> None:
    picture = noisy(EOSIN, 12)
    picture[:, 60:] = noisy((150, 90, 160), 12)[:, 60:]
    picture[40:50, 20:30] = GLASS

    tissue = find_tissue(picture)

    assert not tissue[40:50, 20:30].any()
    assert tissue.mean() > 0.98


@pytest.mark.parametrize("width", [8, 30, 60])
@pytest.mark.parametrize("colour", [(0, 0, 0), (40, 40, 40)])
def test_a_dark_frame_hides_no_tissue_and_is_none(width: int, colour: tuple[int, int, int]) -> None:
    picture = noisy(GLASS)
    picture[30:80, 40:110] = noisy(PALE_EOSIN)[30:80, 40:110]
    framed = cv2.copyMakeBorder(picture, width, width, width, width, cv2.BORDER_CONSTANT, value=colour)

    tissue = find_tissue(framed)

    assert tissue[width + 30 : width + 80, width + 40 : width + 110].mean() > 0.95
    outside = tissue.copy()
    outside[width:-width, width:-width] = False
    assert not outside.any()


def test_dark_ink_beside_it_does_not_turn_pale_tissue_into_glass() -> None:
    picture = noisy(GLASS)
    picture[30:80, 40:110] = noisy(PALE_EOSIN)[30:80, 40:110]
    picture[:, :20] = (60, 91, 204)

    tissue = find_tissue(picture)

    assert tissue[30:80, 40:110].mean() > 0.95
    assert tissue[:, :20].mean() > 0.9


def test_yellowed_glass_is_glass() -> None:
    assert not find_tissue(noisy((240, 225, 190))).any()


@pytest.fixture(scope="module", params=[8, 40])
def scene(request: pytest.FixtureRequest) -> Scene:
    return draw_scene(request.param)


def test_on_a_drawn_slide_the_rule_is_what_the_first_one_was(scene: Scene) -> None:
    assert np.array_equal(find_tissue(scene.rgb), find_tissue_v1(scene.rgb))


@pytest.mark.parametrize("name", SCENES)
def test_tissue_is_found_in_what_the_field_has(scene: Scene, name: str) -> None:
    changed = SCENES[name](scene)

    assert overlap(find_tissue(changed.rgb), changed.tissue) > 0.82


def test_a_smooth_shade_on_glass_is_no_tissue() -> None:
    picture = noisy(GLASS, 0)
    picture[:, :60] = (220, 219, 222)
    picture[30:80, 90:140] = noisy(EOSIN, 12)[30:80, 90:140]

    tissue = find_tissue(picture)

    assert not tissue[:, :58].any()
    assert tissue[30:80, 90:140].mean() > 0.95


def test_what_was_not_scanned_does_not_say_what_glass_is() -> None:
    picture = noisy((239, 235, 232), 1)
    scanned = np.zeros(picture.shape[:2], dtype=bool)
    scanned[30:90, 40:100] = True
    picture[~scanned] = 255
    picture[50:62, 60:74] = noisy(EOSIN, 12)[50:62, 60:74]

    tissue = find_tissue(picture, scanned) & scanned

    assert tissue.sum() == pytest.approx(12 * 14, abs=12)
