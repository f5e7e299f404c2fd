from collections.abc import Callable, Iterable
from itertools import count

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from synthetic.draw_block import BlockPainter
from synthetic.draw_sketch import Drawing, draw_sketch
from synthetic.sketch import Material
from synthetic.slide_truth import FIRST_TRAINING_SEED, SlideTruth, slide_truth
from synthetic.synthetic_slide import BLOCK_PX, SyntheticSlide
from synthetic.world_noise import Box

WIDTH_UM, HEIGHT_UM = 2304, 1920


def slide_of(seed: int, mpp: float = 0.5, stain_seed: int | None = None) -> SyntheticSlide:
    size = round(WIDTH_UM / mpp), round(HEIGHT_UM / mpp)
    return SyntheticSlide(seed=seed, width_px=size[0], height_px=size[1], mpp=mpp, stain_seed=stain_seed)


def seed_where(wanted: Callable[[SlideTruth], bool]) -> int:
    return next(seed for seed in count(FIRST_TRAINING_SEED) if wanted(slide_truth(seed)))


def square_of(slide: SyntheticSlide, region: str, side_um: float = 112.0) -> tuple[float, float]:
    """Where (x, y) in µm the square with most of a region lies."""
    places = [(x, y) for x in range(100, WIDTH_UM - 200, 40) for y in range(100, HEIGHT_UM - 200, 40)]
    return max(places, key=lambda place: slide.layout.composition(place[0], place[1], side_um)[region])


def picture_of(slide: SyntheticSlide, region: str, side_um: float = 112.0) -> NDArray[np.uint8]:
    x, y = square_of(slide, region, side_um)
    side = round(side_um / slide.mpp)
    return slide.draw(round(x / slide.mpp), round(y / slide.mpp), side, side)


def drawing_of(seed: int) -> Drawing:
    slide = slide_of(seed)
    return draw_sketch(Box(0, 0, WIDTH_UM, HEIGHT_UM), slide.truth, slide.layout, 0.5)


def dark_share(pictures: Iterable[NDArray[np.uint8]]) -> float:
    return float(np.mean([(picture.mean(axis=2) < 95).mean() for picture in pictures]))


def test_a_seed_draws_the_same_pixels_every_time_and_others_draw_others() -> None:
    pictures = [slide_of(seed).draw(1800, 1500, 300, 200) for seed in (5, 5, 6)]

    assert pictures[0].shape == (200, 300, 3)
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_a_region_has_the_same_pixels_however_it_is_cut() -> None:
    left, top = 2 * BLOCK_PX - 150, BLOCK_PX - 130
    whole = slide_of(9).draw(left, top, 300, 260)

    parts = slide_of(9)
    rows = [
        np.concatenate([parts.draw(left + x, top + y, 100, 65) for x in (0, 100, 200)], axis=1)
        for y in (195, 0, 130, 65)
    ]

    assert np.array_equal(whole, np.concatenate([rows[1], rows[3], rows[2], rows[0]], axis=0))


@pytest.mark.parametrize("pattern", ["glandular", "solid", "keratinising", "papillary", "lymphoid", "benign"])
@pytest.mark.parametrize("mpp", [0.5, 0.2527])
def test_blocks_meet_without_a_seam(pattern: str, mpp: float) -> None:
    slide = slide_of(seed_where(lambda truth: truth.pattern == pattern), mpp)
    # A crossing of blocks near the slide's middle.
    left, top = (side // 2 // BLOCK_PX * BLOCK_PX - 350 for side in (slide.width_px, slide.height_px))
    truth, layout, stain = slide.truth, slide.layout, slide.stain

    in_one = BlockPainter(truth, layout, stain, mpp).paint((left, top), (left + 1024, top + 700)).astype(int)

    apart = np.abs(in_one - slide.draw(left, top, 1024, 700)).max(axis=2)
    assert (apart > 1).mean() < 0.0005
    assert in_one.std() > 15  # there is tissue


@pytest.mark.parametrize("pattern", ["glandular", "solid", "keratinising", "papillary", "lymphoid", "benign"])
def test_two_resolutions_show_the_same_slide(pattern: str) -> None:
    seed = seed_where(lambda truth: truth.pattern == pattern)
    region = "stroma" if pattern == "benign" else "tumour"

    coarse = picture_of(slide_of(seed), region).astype(float)
    fine = cv2.resize(picture_of(slide_of(seed, 0.25), region), (224, 224), interpolation=cv2.INTER_AREA)

    assert np.abs(coarse - fine).mean() < 8
    assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.95


def test_an_odd_resolution_has_the_same_nuclei() -> None:
    seed = seed_where(lambda truth: truth.pattern == "solid")
    usual = slide_of(seed).draw(2000, 2000, 400, 400)
    start, side = round(1000 / 0.2527), round(200 / 0.2527)

    odd = cv2.resize(slide_of(seed, 0.2527).draw(start, start, side, side), (400, 400), interpolation=cv2.INTER_AREA)

    assert np.corrcoef(usual.ravel(), odd.ravel())[0, 1] > 0.95


def test_another_stain_changes_the_colours_and_not_the_tissue() -> None:
    seed = seed_where(lambda truth: truth.pattern == "solid")
    pictures = [picture_of(slide_of(seed, stain_seed=stain), "tumour") for stain in (1, 2)]

    grey = [cv2.GaussianBlur(picture.mean(axis=2), (9, 9), 0).ravel() for picture in pictures]
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 5
    assert np.corrcoef(*grey)[0, 1] > 0.85


def test_every_stain_is_pink_and_purple() -> None:
    seed = seed_where(lambda truth: truth.pattern == "solid" and truth.extent == "moderate")
    for stain in range(12):
        picture = picture_of(slide_of(seed, stain_seed=stain), "tumour")
        red, green, blue = picture.reshape(-1, 3).mean(axis=0)

        assert red > green + 10
        assert blue > green + 10
        assert 60 < green < 215


@pytest.mark.parametrize(("mitoses", "fewest", "most"), [("frequent", 5.0, 9.0), ("rare", 0.0, 0.3)])
def test_mitoses_per_square_of_tumour_are_as_the_truth_says(mitoses: str, fewest: float, most: float) -> None:
    for pattern in ("glandular", "solid", "papillary", "lymphoid"):
        seed = seed_where(
            lambda truth, pattern=pattern: (truth.pattern, truth.mitoses, truth.extent) == (pattern, mitoses, "high")
        )
        slide, drawing = slide_of(seed), drawing_of(seed)
        inner = [
            (x, y)
            for x in range(0, WIDTH_UM, 56)
            for y in range(0, HEIGHT_UM, 56)
            if slide.layout.composition(x, y, 112)["tumour"] > 0.99
        ]
        counts = [
            ((drawing.mitoses >= place) & (drawing.mitoses < np.add(place, 112))).all(axis=1).sum() for place in inner
        ]

        assert len(counts) > 40
        assert fewest <= np.mean(counts) <= most


def test_a_dividing_cell_is_a_dark_plate_in_a_clear_cell() -> None:
    seed = seed_where(lambda truth: (truth.pattern, truth.mitoses, truth.extent) == ("solid", "frequent", "high"))
    slide = slide_of(seed, stain_seed=0)
    for x, y in drawing_of(seed).mitoses[40:60]:
        cell = slide.draw(int(x / 0.5) - 12, int(y / 0.5) - 12, 25, 25).mean(axis=2)
        away = np.hypot(*np.mgrid[-12:13, -12:13])

        assert cell[away < 9].min() < 80
        assert np.quantile(cell[away < 11], 0.8) > 180


def test_nuclei_grow_with_the_grade_and_vary_more() -> None:
    areas = {}
    for grade in (1, 2, 3):
        seed = seed_where(lambda truth, grade=grade: truth.pattern == "solid" and truth.grade == grade)
        lining = drawing_of(seed).nuclei[-2]
        areas[grade] = np.array([(sprite > 20).sum() for sprite in lining.sprites]) * 0.25

    radii = [np.sqrt(np.median(areas[grade]) / np.pi) for grade in (1, 2, 3)]
    assert radii == pytest.approx([3.6, 4.9, 6.1], rel=0.15)
    spreads = [areas[grade].std() / areas[grade].mean() for grade in (1, 2, 3)]
    assert spreads[0] < spreads[1] < spreads[2]


def test_dense_lymphocytes_are_many_times_the_sparse_ones() -> None:
    counts = {}
    for lymphocytes in ("sparse", "dense"):
        seed = seed_where(lambda truth, wanted=lymphocytes: truth.pattern == "benign" and truth.lymphocytes == wanted)
        drawing = drawing_of(seed)
        stroma = (drawing.sketch.materials == Material.STROMA).sum()
        counts[lymphocytes] = len(drawing.nuclei[-1].points) / stroma * 112**2

    assert counts["dense"] > 25
    assert counts["sparse"] < 3


def test_necrosis_has_no_intact_nuclei() -> None:
    seed = seed_where(lambda truth: truth.pattern == "solid" and truth.necrosis is not None)
    slide, drawing = slide_of(seed), drawing_of(seed)
    whole = [drawing.nuclei[0], *drawing.nuclei[-2:]]

    points = np.concatenate([nuclei.points for nuclei in whole])
    assert (drawing.sketch.read(drawing.sketch.materials, points) != Material.NECROSIS).all()
    assert dark_share([picture_of(slide, "necrosis")]) < 0.2


def test_fibrous_stroma_is_dense_and_loose_stroma_is_pale() -> None:
    pictures = {}
    for stroma in ("fibrous", "loose"):
        seed = seed_where(
            lambda truth, stroma=stroma: (truth.pattern, truth.stroma, truth.lymphocytes) == ("solid", stroma, "sparse")
        )
        pictures[stroma] = picture_of(slide_of(seed, stain_seed=3), "stroma").reshape(-1, 3).mean(axis=0)

    assert pictures["loose"][1] > pictures["fibrous"][1] + 25  # eosin absorbs green


def test_glass_is_glass_and_glass_lies_beyond_the_slide() -> None:
    slide = slide_of(3)
    corner, beyond = slide.draw(0, 0, 100, 100), slide.draw(slide.width_px - 50, slide.height_px - 50, 200, 200)

    for picture in (corner, beyond):
        assert picture.mean() > 215
        assert picture.std() < 6


def test_memory_does_not_grow_with_the_height_of_a_slide() -> None:
    slide = SyntheticSlide(seed=4, width_px=2 * BLOCK_PX, height_px=200 * BLOCK_PX)
    for row in range(0, 200 * BLOCK_PX, 4 * BLOCK_PX):
        slide.draw(0, row, 16, 16)

    assert len(slide._blocks) <= 20
