"""Views of a slide: mirrored, thinned, moved; what is said of them stays true and tiles stay in raster order."""

import numpy as np
import pytest

from synthetic.slide_truth import QUADRANTS, SlideTruth
from training.slide_encoder.slide_bank import BankedSlide
from training.slide_encoder.slide_views import (
    MOST_MOVED,
    MOST_STRETCHED,
    mirrored,
    opposed_views,
    quadrant_view,
    random_view,
)

TRUTH = SlideTruth(1, "solid", 2, "rare", "sparse", "loose", "low", 0.2, "upper left")


@pytest.fixture
def slide() -> BankedSlide:
    """6 × 4 tiles; every feature is its tile's place."""
    coords = np.array([(x, y) for y in range(4) for x in range(6)], dtype=np.int32)
    return BankedSlide(TRUTH, coords.astype(np.float16), coords)


@pytest.mark.parametrize(
    ("across", "down", "quadrant"),
    [
        (False, False, "upper left"),
        (True, False, "upper right"),
        (False, True, "lower left"),
        (True, True, "lower right"),
    ],
)
def test_what_was_in_a_quadrant_is_in_the_mirrored_one(
    slide: BankedSlide, across: bool, down: bool, quadrant: str
) -> None:
    view = mirrored(slide, across=across, down=down)

    assert view.truth.necrosis == quadrant
    was_upper_left = (view.features[:, 0] < 3) & (view.features[:, 1] < 2)
    assert set((view.coords[was_upper_left, 0] < 3).tolist()) == {not across}
    assert set((view.coords[was_upper_left, 1] < 2).tolist()) == {not down}


def test_views_are_in_raster_order_and_inside_the_grid(slide: BankedSlide) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        view = random_view(slide, rng)
        order = np.lexsort((view.coords[:, 0], view.coords[:, 1]))
        assert order.tolist() == list(range(len(view.coords)))
        assert view.coords.min() >= 0
        assert view.coords.max() <= MOST_MOVED + 6 * MOST_STRETCHED
        assert len(slide.coords) * 0.5 < len(view.coords) <= len(slide.coords)


def test_features_stay_with_their_tiles(slide: BankedSlide) -> None:
    view = mirrored(slide, across=True, down=False)
    assert (view.features[:, 0] == 5 - view.coords[:, 0]).all()
    assert (view.features[:, 1] == view.coords[:, 1]).all()


def test_opposed_views_differ_in_where_things_are(slide: BankedSlide) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        first, second = opposed_views(slide, rng)
        assert first.truth.necrosis != second.truth.necrosis


def test_the_quadrants_share_the_slides_tiles_and_one_has_its_necrosis() -> None:
    rows, columns = np.divmod(np.arange(9 * 8), 9)
    coords = np.stack([columns + 3, rows + 5], axis=1).astype(np.int32)
    slide = BankedSlide(TRUTH, np.arange(72, dtype=np.float16)[:, None], coords)

    views = {quadrant: quadrant_view(slide, quadrant) for quadrant in QUADRANTS}

    assert sorted(np.concatenate([view.features[:, 0] for view in views.values()]).tolist()) == list(range(72))
    assert {quadrant: view.truth.necrosis for quadrant, view in views.items()} == {
        quadrant: "upper left" if quadrant == "upper left" else None for quadrant in QUADRANTS
    }
    # Where they are in the slide, as the server shows a region.
    assert views["lower right"].coords.min(axis=0).tolist() == [8, 9]
    assert views["upper left"].coords.max(axis=0).tolist() == [7, 8]
