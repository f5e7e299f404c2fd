"""One part of a slide from its map: materials, and all nuclei that lie on them."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.mitoses import place_mitoses
from synthetic.necrosis import debris
from synthetic.nucleus_sprites import NucleusKind, anyhow, sprites_of, towards
from synthetic.sketch import Material, Nuclei, Places, Plane, Sketch
from synthetic.slide_layout import SlideLayout
from synthetic.slide_truth import SlideTruth
from synthetic.smooth_noise import wrapped_noise
from synthetic.stroma import (
    DUCT_NUCLEUS,
    LYMPHOCYTE,
    SPINDLE,
    STELLATE,
    draw_ducts,
    draw_fat,
    draw_vessels,
    lymphocytes,
    spindles,
)
from synthetic.textures import PERIOD_UM, fibre_direction
from synthetic.tumour import draw_tumour, tumour_nucleus
from synthetic.world_noise import Box, Points

# How far around tumour its stroma counts as its edge.
_EDGE_UM = 41
_RELIEF = 46


@dataclass(frozen=True)
class Drawing:
    """A sketch with its nuclei, from the lowest to the topmost, and its dividing cells with a uniform number each."""

    sketch: Sketch
    nuclei: list[Nuclei]
    mitoses: Points
    phases: NDArray[np.float32]


def draw_sketch(box: Box, truth: SlideTruth, layout: SlideLayout, mpp: float) -> Drawing:
    """Everything that reaches into the box; `mpp` only sets the sprites' resolution, never what there is."""
    sketch = Sketch(box)
    masks = {name: _inside(sketch, layout, name) for name in ("glass", "tumour", "necrosis", "fat")}
    places, kind = _tissue(sketch, truth, layout, masks)
    sketch.materials[masks["necrosis"] > 0] = Material.NECROSIS
    sketch.materials[masks["glass"] > 0] = Material.GLASS
    epithelium = _epithelium_of_tumour(sketch, masks["tumour"], truth)
    mitoses, phases = place_mitoses(sketch, truth, epithelium)
    lining = _chosen(sketch, places, kind, Material.EPITHELIUM, mpp)
    return Drawing(sketch, [*_between(sketch, truth, epithelium, mpp, lining)], mitoses, phases)


def _tissue(
    sketch: Sketch, truth: SlideTruth, layout: SlideLayout, masks: dict[str, Plane]
) -> tuple[Places, NucleusKind]:
    """Draws stroma and tumour; where epithelial nuclei may lie and of which kind they are."""
    draw_vessels(sketch, truth.seed, layout, 0.5 if truth.pattern == "benign" else 0.3)
    if truth.pattern == "benign":
        draw_fat(sketch, truth.seed, masks["fat"])
        return draw_ducts(sketch, truth.seed, layout), DUCT_NUCLEUS
    return draw_tumour(sketch, truth, layout, masks["tumour"]), tumour_nucleus(truth)


def _between(sketch: Sketch, truth: SlideTruth, epithelium: Plane, mpp: float, lining: Nuclei) -> list[Nuclei]:
    fibres = spindles(sketch, truth, lambda points: fibre_direction(points, truth.seed))
    spindle = sprites_of(SPINDLE if truth.stroma == "fibrous" else STELLATE, mpp)
    edge = cv2.dilate(epithelium, np.ones((_EDGE_UM, _EDGE_UM), dtype=np.uint8))
    immune = lymphocytes(sketch, truth, np.asarray(edge, dtype=np.uint8))
    return [
        Nuclei(spindle, towards(fibres.angles, fibres.chances[:, 0]), fibres.points),
        *debris(sketch, truth.seed, mpp),
        lining,
        Nuclei(sprites_of(LYMPHOCYTE, mpp), anyhow(immune.chances[:, 0]), immune.points),
    ]


def _epithelium_of_tumour(sketch: Sketch, tumour: Plane, truth: SlideTruth) -> Plane:
    """255 where there is tumour epithelium: glands reach beyond the map's edge of the tumour, ducts are none."""
    if truth.pattern == "benign":
        return np.zeros_like(tumour)
    return np.where(sketch.materials == Material.EPITHELIUM, np.uint8(255), np.uint8(0))


def _chosen(sketch: Sketch, places: Places, kind: NucleusKind, material: Material, mpp: float) -> Nuclei:
    places = places.where(sketch.is_free(places.points, material))
    free = np.isnan(places.angles)
    angles = np.where(free, places.chances[:, 1] * np.pi, places.angles).astype(np.float32)
    return Nuclei(sprites_of(kind, mpp), towards(angles, places.chances[:, 0]), places.points)


def _inside(sketch: Sketch, layout: SlideLayout, name: str) -> Plane:
    """255 where the sketch lies in a region; the map's edges made ragged."""
    soft = layout.softly(name, sketch.box)
    if not soft.any():
        return soft
    starts = round(sketch.box.top), round(sketch.box.left)
    rows, columns = (np.arange(start, start + side) % PERIOD_UM for start, side in zip(starts, soft.shape, strict=True))
    return np.asarray(cv2.compare(soft, _relief()[np.ix_(rows, columns)], cv2.CMP_GT), dtype=np.uint8)


@lru_cache(maxsize=1)
def _relief() -> Plane:
    """Thresholds around 128 that vary over some 10 µm."""
    rng = np.random.default_rng(4)
    noise = wrapped_noise(rng, PERIOD_UM, 9, 9) + 0.4 * wrapped_noise(rng, PERIOD_UM, 3, 3)
    return np.asarray(np.clip(128 + _RELIEF * noise / 2, 30, 225), dtype=np.uint8)
