"""Tumour: one of five patterns, with nuclei of its grade."""

from dataclasses import dataclass

import numpy as np

from synthetic.fronds import FrondShape, draw_fronds
from synthetic.glands import GlandShape, draw_glands
from synthetic.nests import bent, draw_nests, draw_pearls
from synthetic.nucleus_sprites import NucleusKind
from synthetic.sketch import Material, Places, Plane, Sketch
from synthetic.slide_layout import REGIONS, SlideLayout
from synthetic.slide_truth import SlideTruth
from synthetic.world_noise import Scatter, scatter

_GLANDS, _NESTS, _FRONDS, _CELLS = 10, 11, 12, 13
_REACH_UM = 190.0


@dataclass(frozen=True)
class GradeLooks:
    """What one grade looks like: nuclear radius in µm and its spread, distance of nuclei in µm, darkness, nucleoli."""

    radius_um: float
    spread: float
    spacing_um: float
    dark: float
    dark_spread: float
    nucleolus: float
    vesicular: float


LOOKS = {
    1: GradeLooks(3.6, 0.08, 10.4, 92.0, 0.08, 0.0, 0.22),
    2: GradeLooks(4.9, 0.18, 13.0, 100.0, 0.14, 0.75, 0.32),
    3: GradeLooks(6.1, 0.27, 15.6, 110.0, 0.24, 0.95, 0.32),
}
LYMPHOID_NUCLEUS = NucleusKind(3.0, 0.09, 1.12, 138.0, 0.10, vesicular=0.15)
_LYMPHOID_SPACING_UM = 7.3


def tumour_nucleus(truth: SlideTruth) -> NucleusKind:
    """The nuclei of this slide's tumour."""
    if truth.grade is None:
        return LYMPHOID_NUCLEUS
    looks = LOOKS[truth.grade]
    elongation = {"glandular": 1.55, "papillary": 1.35}.get(truth.pattern, 1.2)
    return NucleusKind(
        looks.radius_um,
        looks.spread,
        elongation,
        looks.dark,
        looks.dark_spread,
        looks.nucleolus,
        looks.vesicular,
        irregular=0.03 * truth.grade,
    )


def draw_tumour(sketch: Sketch, truth: SlideTruth, layout: SlideLayout, inside: Plane) -> Places:
    """Draws the pattern where `inside` (0 or 255) is set; where its nuclei may lie, if the material allows."""
    if truth.pattern == "glandular":
        return _glandular(sketch, truth, layout)
    plane, places = _papillary(sketch, truth) if truth.pattern == "papillary" else _sheets(sketch, truth)
    np.copyto(sketch.materials, plane, where=inside > 0)
    return places


def _glandular(sketch: Sketch, truth: SlideTruth, layout: SlideLayout) -> Places:
    assert truth.grade is not None
    looks = LOOKS[truth.grade]
    shape = GlandShape(
        radius_um=35 + 4.0 * truth.grade,
        wall_um=(14.5, 18.0, 22.0)[truth.grade - 1],
        spacing_um=(7.2, 9.0, 11.0)[truth.grade - 1],
        base_um=looks.radius_um * 1.25 + 2.2,
        irregular=0.10 + 0.05 * truth.grade,
        stratified=(0.0, 0.15, 0.3)[truth.grade - 1],
    )
    centres = scatter(
        (truth.seed, _GLANDS), sketch.box.grown(_REACH_UM), 2.16 * shape.radius_um, jitter=0.45, chances=6
    )
    within = layout.region_at(centres.points) == REGIONS.index("tumour")
    return draw_glands(sketch, centres.where(within), shape)


def _papillary(sketch: Sketch, truth: SlideTruth) -> tuple[Plane, Places]:
    assert truth.grade is not None
    looks = LOOKS[truth.grade]
    shape = FrondShape(
        length_um=200.0 + 15 * truth.grade,
        core_um=4.5,
        lining_um=(12.0, 14.5, 17.0)[truth.grade - 1],
        spacing_um=looks.spacing_um * (0.72, 0.76, 0.80)[truth.grade - 1],
    )
    roots = scatter((truth.seed, _FRONDS), sketch.box.grown(_REACH_UM), 122.0 + 15 * truth.grade, jitter=0.3, chances=8)
    plane = np.full_like(sketch.materials, Material.LUMEN)
    return plane, draw_fronds(sketch, plane, roots, shape)


def _sheets(sketch: Sketch, truth: SlideTruth) -> tuple[Plane, Places]:
    plane = np.full_like(sketch.materials, Material.EPITHELIUM)
    spacing = _LYMPHOID_SPACING_UM if truth.grade is None else LOOKS[truth.grade].spacing_um
    if truth.pattern == "solid":
        plane = bent(sketch, draw_nests(sketch, _nests(sketch, truth, 96.0), Material.EPITHELIUM, Material.STROMA, 9.0))
    if truth.pattern == "keratinising":
        nests = _nests(sketch, truth, 112.0)
        plane = draw_nests(sketch, nests, Material.EPITHELIUM, Material.STROMA, 11.0)
        plane = bent(sketch, plane)
        draw_pearls(sketch, plane, nests.where(nests.chances[:, 2] < 0.85), 27.0)
    cells = scatter((truth.seed, _CELLS), sketch.box, spacing, jitter=0.5)
    return plane, Places(cells.points, np.full(len(cells.points), np.nan, dtype=np.float32), cells.chances[:, :2])


def _nests(sketch: Sketch, truth: SlideTruth, pitch_um: float) -> Scatter:
    return scatter((truth.seed, _NESTS), sketch.box.grown(_REACH_UM), pitch_um, jitter=0.6)
