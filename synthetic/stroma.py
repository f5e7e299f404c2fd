"""The tissue between the tumour: spindle nuclei along fibres, vessels, lymphocytes; in benign slides ducts and fat."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthetic.glands import GlandShape, draw_glands
from synthetic.nests import bent, draw_nests
from synthetic.nucleus_sprites import NucleusKind
from synthetic.sketch import Material, Places, Plane, Sketch
from synthetic.slide_layout import REGIONS, SlideLayout
from synthetic.slide_truth import Lymphocytes, SlideTruth
from synthetic.world_noise import Points, Scatter, scatter

_SPINDLES, _VESSELS, _LYMPHOCYTES, _DUCTS, _FAT, _BLOOD = 20, 21, 22, 23, 24, 25

SPINDLE = NucleusKind(2.7, 0.15, 5.0, 100.0, 0.12, vesicular=0.1)
STELLATE = NucleusKind(2.6, 0.15, 2.2, 88.0, 0.12, vesicular=0.1)
LYMPHOCYTE = NucleusKind(2.7, 0.08, 1.06, 190.0, 0.06, vesicular=0.12)
DUCT_NUCLEUS = NucleusKind(3.0, 0.07, 1.35, 96.0, 0.06)

_DUCT = GlandShape(radius_um=30.0, wall_um=15.0, spacing_um=6.6, base_um=5.5, irregular=0.05, stratified=0.35)
_LYMPHOCYTE_SPACING_UM = 8.2


@dataclass(frozen=True)
class LymphocyteShares:
    """Share of the places that a lymphocyte takes: in open stroma, in stroma between tumour, and within epithelium."""

    stroma: float
    between: float
    epithelium: float


SHARES: dict[Lymphocytes, LymphocyteShares] = {
    "sparse": LymphocyteShares(0.010, 0.010, 0.002),
    "dense": LymphocyteShares(0.34, 0.60, 0.055),
}


def draw_fat(sketch: Sketch, seed: int, inside: Plane) -> None:
    """Fat cells with thin walls where `inside` is set."""
    centres = scatter((seed, _FAT), sketch.box.grown(120), 52.0, jitter=0.7)
    plane = bent(sketch, draw_nests(sketch, centres, Material.LUMEN, Material.WALL, 2.4))
    np.copyto(sketch.materials, plane, where=inside > 0)


def draw_ducts(sketch: Sketch, seed: int, layout: SlideLayout) -> Places:
    """Small regular ducts in the stroma, far apart."""
    centres = scatter((seed, _DUCTS), sketch.box.grown(90), 175.0, jitter=0.6, chances=6)
    return draw_glands(sketch, _in_stroma(layout, centres, 0.55, 40.0), _DUCT)


def draw_vessels(sketch: Sketch, seed: int, layout: SlideLayout, share: float) -> None:
    """Small vessels with a pink wall and red cells in them."""
    centres = scatter((seed, _VESSELS), sketch.box.grown(60), 190.0, jitter=0.8)
    found = _in_stroma(layout, centres, share, 32.0)
    for centre, chances in zip(found.points, found.chances, strict=True):
        radius = 8.0 + 9.0 * float(chances[1])
        sketch.disc(centre, radius + 4.5, Material.WALL)
        sketch.disc(centre, radius, Material.LUMEN)
        for turn in np.arange(0, 6.3, 1.25) + float(chances[2]):
            at = centre + 0.55 * radius * np.array([np.cos(turn), np.sin(turn)], dtype=np.float32)
            sketch.disc(at, 3.1, Material.BLOOD)


def spindles(sketch: Sketch, truth: SlideTruth, direction_at: Callable[[Points], NDArray[np.float32]]) -> Places:
    """Nuclei of the stroma's own cells along the fibres."""
    fibrous = truth.stroma == "fibrous"
    found = scatter((truth.seed, _SPINDLES), sketch.box, 17.0 if fibrous else 24.0, jitter=0.9)
    found = found.where((found.chances[:, 0] < 0.6) & sketch.is_free(found.points, Material.STROMA))
    angles = direction_at(found.points) + 0.5 * (found.chances[:, 1] - 0.5)
    return Places(found.points, angles.astype(np.float32), found.chances[:, 2:4])


def lymphocytes(sketch: Sketch, truth: SlideTruth, near_tumour: Plane) -> Places:
    """Lymphocytes; `near_tumour` is set where stroma lies within tumour or at its edge."""
    shares = SHARES[truth.lymphocytes]
    found = scatter((truth.seed, _LYMPHOCYTES), sketch.box, _LYMPHOCYTE_SPACING_UM, jitter=0.8)
    near = sketch.read(near_tumour, found.points) > 0
    wanted = np.where(near, shares.between, shares.stroma * _clusters(found.points))
    in_stroma = sketch.is_free(found.points, Material.STROMA) & (found.chances[:, 0] < wanted)
    in_epithelium = sketch.is_free(found.points, Material.EPITHELIUM) & (found.chances[:, 0] < shares.epithelium)
    found = found.where(in_stroma | in_epithelium)
    return Places(found.points, np.full(len(found.points), np.nan, dtype=np.float32), found.chances[:, 1:3])


def _clusters(points: Points) -> NDArray[np.float32]:
    """From 0.45 to 1.4, slowly varying."""
    x, y = points[:, 0], points[:, 1]
    return np.asarray(0.92 + 0.48 * np.sin(x / 41 + 1.7 * np.sin(y / 63)) * np.cos(y / 47 + 1.3 * np.sin(x / 71)))


def _in_stroma(layout: SlideLayout, centres: Scatter, share: float, margin_um: float) -> Scatter:
    """The chosen centres whose surroundings are stroma."""
    keep = centres.chances[:, 0] < share
    for shift in ((0, 0), (margin_um, 0), (-margin_um, 0), (0, margin_um), (0, -margin_um)):
        keep &= layout.region_at(centres.points + np.array(shift, dtype=np.float32)) == REGIONS.index("stroma")
    return centres.where(keep)
