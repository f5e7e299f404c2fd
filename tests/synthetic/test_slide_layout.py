import cv2
import numpy as np
import pytest

from synthetic.place_regions import quadrant_box
from synthetic.slide_layout import REGIONS, SlideLayout
from synthetic.slide_truth import FIRST_TRAINING_SEED, slide_truth

SEEDS = range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + 40)


def layout_of(seed: int, width_um: float = 2304, height_um: float = 1920) -> SlideLayout:
    return SlideLayout(slide_truth(seed), width_um=width_um, height_um=height_um)


@pytest.mark.parametrize(("width_um", "height_um"), [(2304, 1920), (350, 250), (2000, 300)])
def test_tumour_covers_the_fraction_that_the_truth_says(width_um: float, height_um: float) -> None:
    for seed in SEEDS:
        layout = layout_of(seed, width_um, height_um)

        assert layout.tumour_fraction() == pytest.approx(slide_truth(seed).tumour_fraction, abs=0.02)


def test_all_necrosis_is_one_blob_inside_its_quadrant() -> None:
    necrotic = [seed for seed in SEEDS if slide_truth(seed).necrosis]
    for seed in necrotic:
        layout, quadrant = layout_of(seed), slide_truth(seed).necrosis
        assert quadrant is not None
        necrosis = layout.region_map == REGIONS.index("necrosis")
        inside = np.zeros_like(necrosis)
        inside[quadrant_box(layout.tissue_mask(), quadrant)] = True

        assert not (necrosis & ~inside).any()
        assert cv2.connectedComponents(necrosis.astype(np.uint8))[0] == 2  # itself and the rest
        assert 0.07 <= necrosis.sum() / layout.tissue_mask().sum() <= 0.12
    assert {slide_truth(seed).necrosis for seed in necrotic} > {"upper left", "lower right"}


def test_slides_without_necrosis_or_tumour_have_none() -> None:
    for seed in SEEDS:
        truth, regions = slide_truth(seed), set(np.unique(layout_of(seed).region_map))

        assert (REGIONS.index("necrosis") in regions) == (truth.necrosis is not None)
        assert (REGIONS.index("tumour") in regions) == (truth.pattern != "benign")


def test_tissue_spans_most_of_the_slide_with_glass_around_it() -> None:
    for seed in SEEDS:
        tissue = layout_of(seed).tissue_mask()
        _, _, width, height = cv2.boundingRect(tissue.astype(np.uint8))

        assert 0.55 <= width / tissue.shape[1] <= 0.8
        assert 0.55 <= height / tissue.shape[0] <= 0.8
        assert not np.delete(tissue, np.s_[1:-1], axis=0).any()
        assert not np.delete(tissue, np.s_[1:-1], axis=1).any()


def test_a_larger_slide_of_the_same_seed_has_the_same_map_larger() -> None:
    small, large = layout_of(7).region_map, layout_of(7, 4608, 3840).region_map

    enlarged = cv2.resize(small, large.shape[::-1], interpolation=cv2.INTER_NEAREST)
    assert (enlarged == large).mean() > 0.95


def test_composition_counts_the_cells_of_a_square() -> None:
    layout = layout_of(SEEDS[5])
    cells = layout.region_map[100:110, 90:100]

    shares = layout.composition(90 * layout.cell_um, 100 * layout.cell_um, 10 * layout.cell_um)

    assert set(shares) == set(REGIONS)
    for place, name in enumerate(REGIONS):
        assert shares[name] == pytest.approx((cells == place).mean(), abs=1e-6)


def test_composition_of_any_square_sums_to_one() -> None:
    layout, rng = layout_of(SEEDS[6]), np.random.default_rng(0)
    for x, y, side in zip(*rng.uniform((-300, -300, 5), (2500, 2100, 400), size=(50, 3)).T, strict=True):
        assert sum(layout.composition(x, y, side).values()) == pytest.approx(1.0, abs=1e-6)
    assert layout.composition(-500.0, 0.0, 100.0)["glass"] == 1.0


def test_some_slides_have_folds_over_tissue_and_some_pen_marks() -> None:
    layouts = [layout_of(seed, 350, 290) for seed in range(100)]
    shares = [layout.artefacts(0.0, 0.0, 350.0) for layout in layouts]

    for name in ("fold", "pen"):
        assert 5 <= sum(share[name] > 0 for share in shares) <= 28
        assert max(share[name] for share in shares) < 0.1
