"""Other slides out of one: mirrored, thinned and moved, with the truth that then holds. Order stays raster."""

from dataclasses import replace
from typing import Final

import numpy as np

from synthetic.slide_truth import QUADRANTS, Quadrant, SlideTruth
from training.slide_encoder.slide_bank import BankedSlide

MOST_DROPPED: Final = 0.15
# Grid steps by which a view is moved from the slide's upper left: large slides have their tissue anywhere.
MOST_MOVED: Final = 6
# A share of the views is as if the slide were larger: its tiles up to so many times as far apart.
MOST_STRETCHED: Final = 2.5
_STRETCHED_SHARE: Final = 0.3
FLIPS: Final = ((False, False), (True, False), (False, True), (True, True))

_SIDES: Final = {"left": "right", "right": "left", "upper": "lower", "lower": "upper"}


def random_view(slide: BankedSlide, rng: np.random.Generator) -> BankedSlide:
    """Mirrored or not along each axis, with up to `MOST_DROPPED` of its tiles away, moved and perhaps stretched."""
    across, down = FLIPS[int(rng.integers(len(FLIPS)))]
    return _view(slide, across, down, rng)


def opposed_views(slide: BankedSlide, rng: np.random.Generator) -> tuple[BankedSlide, BankedSlide]:
    """Two such views, mirrored differently."""
    first, second = rng.permutation(len(FLIPS))[:2]
    return _view(slide, *FLIPS[first], rng), _view(slide, *FLIPS[second], rng)


def quadrant_view(slide: BankedSlide, quadrant: Quadrant) -> BankedSlide:
    """The tiles of a quadrant of the tissue's bounding box, where they are in the slide: as the server shows a region.
    Its truth has the slide's necrosis if that is there; nothing else in it is about the quadrant. May have no tile."""
    first, last = slide.coords.min(axis=0), slide.coords.max(axis=0)
    is_second = slide.coords > (first + last) / 2
    lower, right = divmod(QUADRANTS.index(quadrant), 2)
    rows = np.nonzero((is_second[:, 0] == bool(right)) & (is_second[:, 1] == bool(lower)))[0]
    necrosis = slide.truth.necrosis if slide.truth.necrosis == quadrant else None
    return replace(_of_tiles(slide, rows), truth=replace(slide.truth, necrosis=necrosis))


def mirrored(slide: BankedSlide, *, across: bool, down: bool) -> BankedSlide:
    """The slide turned over: left for right if `across`, upper for lower if `down`."""
    coords = slide.coords.copy()
    for axis, flipped in enumerate((across, down)):
        if flipped:
            coords[:, axis] = coords[:, axis].min() + coords[:, axis].max() - coords[:, axis]
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    return BankedSlide(_mirrored_truth(slide.truth, across, down), slide.features[order], coords[order])


def _mirrored_truth(truth: SlideTruth, across: bool, down: bool) -> SlideTruth:
    if truth.necrosis is None:
        return truth
    vertical, horizontal = truth.necrosis.split()
    vertical = _SIDES[vertical] if down else vertical
    horizontal = _SIDES[horizontal] if across else horizontal
    necrosis: Quadrant = QUADRANTS[QUADRANTS.index(f"{vertical} {horizontal}")]
    return replace(truth, necrosis=necrosis)


def _of_tiles(slide: BankedSlide, rows: np.ndarray) -> BankedSlide:
    return BankedSlide(slide.truth, slide.features[rows], slide.coords[rows])


def _view(slide: BankedSlide, across: bool, down: bool, rng: np.random.Generator) -> BankedSlide:
    kept = np.nonzero(rng.random(len(slide.coords)) >= rng.uniform(0, MOST_DROPPED))[0]
    view = mirrored(_of_tiles(slide, kept), across=across, down=down)
    stretch = rng.uniform(1, MOST_STRETCHED) if rng.random() < _STRETCHED_SHARE else 1.0
    return _moved(replace(view, coords=(view.coords * stretch).astype(np.int32)), rng)


def _moved(slide: BankedSlide, rng: np.random.Generator) -> BankedSlide:
    corner = rng.integers(0, MOST_MOVED + 1, 2).astype(np.int32)
    return replace(slide, coords=slide.coords - slide.coords.min(axis=0) + corner)
