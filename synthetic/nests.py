"""Nests: the world cut into cells with curved gaps between them; keratin pearls in some, or fat."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.sketch import Material, Plane, Sketch
from synthetic.smooth_noise import wrapped_noise
from synthetic.world_noise import Points, Scatter

_PERIOD_UM = 1024
_PEARL_CORNERS = 32
_BEND_UM = 3.0
_PEARL_RING_UM = 3.6


def draw_nests(sketch: Sketch, centres: Scatter, inside: Material, gap: Material, gap_um: float) -> Plane:
    """A plane like the sketch's materials: a nest around each centre, gaps about so wide between nests."""
    plane = np.full_like(sketch.materials, inside)
    for facet, chance in zip(_facets(centres.points), centres.chances[:, 0], strict=True):
        cv2.polylines(
            plane, [sketch.fixed(facet)], True, int(gap), max(1, round(gap_um * (0.6 + 0.8 * chance))), cv2.LINE_8, 3
        )
    return plane


def draw_pearls(sketch: Sketch, plane: Plane, centres: Scatter, radius_um: float) -> None:
    """Concentric rings of keratin around each centre."""
    for centre, chance in zip(centres.points, centres.chances[:, 1], strict=True):
        turn = np.linspace(0, 2 * np.pi, _PEARL_CORNERS, endpoint=False, dtype=np.float32)
        wave = 1 + 0.16 * np.cos(2 * turn + 40 * chance) + 0.06 * np.cos(5 * turn + 90 * chance)
        around = np.stack([np.cos(turn), np.sin(turn)], axis=1) * wave[:, np.newaxis]
        for ring in range(int(radius_um * (0.8 + 0.4 * float(chance)) / _PEARL_RING_UM), 0, -1):
            material = Material.KERATIN if ring % 2 else Material.PALE_KERATIN
            sketch.polygon(centre + ring * _PEARL_RING_UM * around, material, plane=plane)


def bent(sketch: Sketch, plane: Plane) -> Plane:
    """The plane with its straight lines bent, the same way wherever it is cut."""
    rows, columns = (
        np.arange(round(start), round(start) + side) for start, side in zip(_corner(sketch), plane.shape, strict=True)
    )
    shift_x, shift_y = (field[np.ix_(rows % _PERIOD_UM, columns % _PERIOD_UM)] for field in _bends())
    x = (columns - sketch.box.left)[np.newaxis].astype(np.float32) + shift_x
    y = (rows - sketch.box.top)[:, np.newaxis].astype(np.float32) + shift_y
    return np.asarray(cv2.remap(plane, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8)


def _corner(sketch: Sketch) -> tuple[float, float]:
    return sketch.box.top, sketch.box.left


@lru_cache(maxsize=1)
def _bends() -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(9)
    return tuple(_bend(rng) for _ in range(2))


def _bend(rng: np.random.Generator) -> NDArray[np.float32]:
    bend = wrapped_noise(rng, _PERIOD_UM, 14, 14) + 0.25 * wrapped_noise(rng, _PERIOD_UM, 4, 4)
    return np.asarray(_BEND_UM * bend, dtype=np.float32)


def _facets(centres: Points) -> list[Points]:
    """The Voronoi cell, corners [k, 2], around each centre."""
    low, high = centres.min(axis=0) - 50, centres.max(axis=0) + 50
    plane = cv2.Subdiv2D((float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])))
    plane.insert([(float(x), float(y)) for x, y in centres])
    facets, _ = plane.getVoronoiFacetList([])
    return [np.asarray(facet, dtype=np.float32) for facet in facets]
