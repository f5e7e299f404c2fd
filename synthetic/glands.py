"""Glands: a ring of epithelium around a lumen, nuclei side by side at its base and pointing inwards."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthetic.sketch import Material, Places, Sketch
from synthetic.world_noise import Points, Scatter

_CORNERS = 44
# Places for nuclei around one gland at most.
_MOST_NUCLEI = 72


@dataclass(frozen=True)
class GlandShape:
    """Radius of a gland, thickness of its wall, distance of nuclei along it and from its base, all in µm."""

    radius_um: float
    wall_um: float
    spacing_um: float
    base_um: float
    irregular: float
    # Share of nuclei that have a second one above them.
    stratified: float = 0.0


def draw_glands(sketch: Sketch, centres: Scatter, shape: GlandShape) -> Places:
    """Draws a gland around each centre (six chances each) and says where its nuclei may lie."""
    turn = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False, dtype=np.float32)
    outer = _radius(centres, shape, np.broadcast_to(turn, (len(centres.points), _CORNERS)))
    inner = np.maximum(outer * 0.25, outer - shape.wall_um)
    around = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for centre, out, inside, chance in zip(centres.points, outer, inner, centres.chances[:, 5], strict=True):
        sketch.polygon(centre + out[:, np.newaxis] * around, Material.EPITHELIUM)
        sketch.polygon(centre + inside[:, np.newaxis] * around, Material.LUMEN)
        if chance < 0.3:
            sketch.polygon(centre + 0.6 * inside[:, np.newaxis] * around, Material.SECRETION)
    return _nuclei(centres, shape)


def _radius(centres: Scatter, shape: GlandShape, turn: NDArray[np.float32]) -> NDArray[np.float32]:
    """Radius in µm [n, k] of each gland towards angles [n, k]."""
    size, two, three, phase, other = (centres.chances[:, k, np.newaxis] for k in range(5))
    wave = (two - 0.3) * np.cos(2 * turn + 6.28 * phase) + (three - 0.4) * 0.7 * np.cos(3 * turn + 6.28 * other)
    wave = wave + 0.25 * np.cos(5 * turn + 12.56 * phase)
    return np.asarray(shape.radius_um * (0.78 + 0.4 * size) * (1 + shape.irregular * wave), dtype=np.float32)


def _nuclei(centres: Scatter, shape: GlandShape) -> Places:
    mean = shape.radius_um * (0.78 + 0.4 * centres.chances[:, 0])
    counts = np.maximum(6, np.round(2 * np.pi * (mean - shape.base_um) / shape.spacing_um))
    number = np.arange(_MOST_NUCLEI)
    own = np.modf(centres.chances[:, 1:2] * 977 + number * 0.7548777)[0].astype(np.float32)
    other = np.modf(centres.chances[:, 2:3] * 613 + number * 0.5698403)[0].astype(np.float32)
    turn = (2 * np.pi * (number + 0.5 * own) / counts[:, np.newaxis]).astype(np.float32)
    depth = np.asarray(shape.base_um + 2.2 * (other - 0.5), dtype=np.float32)
    radius = _radius(centres, shape, turn) - depth
    above = np.asarray(radius - 0.9 * shape.spacing_um, dtype=np.float32)
    layers = [_placed(centres, radius, turn, own, other), _placed(centres, above, turn, other, own)]
    there = number < counts[:, np.newaxis]
    second = there & (own < shape.stratified)
    kept = [layer.where(keep.ravel()) for layer, keep in zip(layers, (there, second), strict=True)]
    return Places(
        *(np.concatenate([getattr(layer, name) for layer in kept]) for name in ("points", "angles", "chances"))
    )


def _placed(
    centres: Scatter,
    radius: NDArray[np.float32],
    turn: NDArray[np.float32],
    own: NDArray[np.float32],
    other: NDArray[np.float32],
) -> Places:
    around = np.stack([np.cos(turn), np.sin(turn)], axis=2)
    points: Points = (centres.points[:, np.newaxis] + radius[..., np.newaxis] * around).reshape(-1, 2)
    chances = np.stack([own.ravel(), other.ravel()], axis=1)
    return Places(points.astype(np.float32), turn.ravel() % np.float32(np.pi), chances)
