"""Papillary fronds: branching fingers in clear space, each a fibrovascular core lined by one row of nuclei."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthetic.sketch import Material, Places, Plane, Sketch
from synthetic.world_noise import Points, Scatter

_STEPS = 14
_BRANCHES = 5
_CLEFT_UM = 5.0


@dataclass(frozen=True)
class FrondShape:
    """Length of a trunk, half width of its core, thickness of its lining and distance of nuclei along it, in µm."""

    length_um: float
    core_um: float
    lining_um: float
    spacing_um: float


def draw_fronds(sketch: Sketch, plane: Plane, roots: Scatter, shape: FrondShape) -> Places:
    """Draws a frond around each root (eight chances each) and says where its nuclei may lie."""
    parts = [_trunks(roots, shape), *(_branches(roots, shape, number) for number in range(_BRANCHES))]
    for frond in np.stack(parts, axis=1):
        _draw_frond(sketch, plane, frond, shape)
    return _lining(np.concatenate(parts), shape)


def _draw_frond(sketch: Sketch, plane: Plane, lines: Points, shape: FrondShape) -> None:
    """One frond over those before it, with a cleft around it."""
    lining = 2 * (shape.core_um + shape.lining_um)
    layers = (
        (lining + 2 * _CLEFT_UM, Material.LUMEN),
        (lining, Material.EPITHELIUM),
        (2 * shape.core_um, Material.STROMA),
    )
    for width_um, material in layers:
        for line in lines:
            sketch.stroke(line, width_um, material, plane=plane)


def _angles(roots: Scatter) -> NDArray[np.float32]:
    """Neighbours point about the same way, far ones do not."""
    slow = np.sin(roots.points[:, 0] / 310.0) + np.cos(roots.points[:, 1] / 270.0)
    return np.asarray(1.2 * slow + 1.1 * (roots.chances[:, 0] - 0.5), dtype=np.float32)


def _curved(
    start: Points, angle: NDArray[np.float32], length: NDArray[np.float32], bend: NDArray[np.float32]
) -> Points:
    """Lines [n, steps, 2] from starts [n, 2] that turn by `bend` radians on their way."""
    along = np.linspace(0, 1, _STEPS, dtype=np.float32)
    heading = angle[:, np.newaxis] + bend[:, np.newaxis] * (along - 0.5)
    step = (length / (_STEPS - 1))[:, np.newaxis]
    moves = np.stack([np.cos(heading) * step, np.sin(heading) * step], axis=2)
    moves[:, 0] = 0
    return np.asarray(start[:, np.newaxis] + np.cumsum(moves, axis=1), dtype=np.float32)


def _trunks(roots: Scatter, shape: FrondShape) -> Points:
    angle, bend = _angles(roots), 1.6 * (roots.chances[:, 1] - 0.5)
    length = shape.length_um * (0.8 + 0.4 * roots.chances[:, 2])
    back = np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, np.newaxis] / 2
    return _curved(roots.points - back, angle, length, bend)


def _branches(roots: Scatter, shape: FrondShape, number: int) -> Points:
    """One branch of every trunk, left and right in turn."""
    trunk = _trunks(roots, shape)
    chance = np.modf(roots.chances[:, 3 + number] * 7.31)[0]
    at = 2 + number * (_STEPS - 3) // _BRANCHES
    side = 1.0 if number % 2 else -1.0
    angle = _angles(roots) + side * (0.95 + 0.4 * chance)
    length = shape.length_um * (0.24 + 0.22 * roots.chances[:, 3 + number])
    return _curved(trunk[:, at], angle.astype(np.float32), length, (0.8 * (chance - 0.5)).astype(np.float32))


def _lining(lines: Points, shape: FrondShape) -> Places:
    """Along both sides of every line and around its tip."""
    off = shape.core_um + 0.45 * shape.lining_um
    tangent = np.gradient(lines, axis=1)
    tangent /= np.maximum(1e-6, np.linalg.norm(tangent, axis=2, keepdims=True))
    length = np.linalg.norm(np.diff(lines, axis=1), axis=2).sum(axis=1)
    sides = [_side(lines, tangent, length, side * off, shape.spacing_um) for side in (-1.0, 1.0)]
    tips = [_tip(lines[:, -1], tangent[:, -1], turn, off) for turn in (-0.9, 0.0, 0.9)]
    parts = sides + tips
    return Places(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.angles for part in parts]),
        np.concatenate([part.chances for part in parts]),
    )


def _side(lines: Points, tangent: Points, length: NDArray[np.float32], off: float, spacing_um: float) -> Places:
    most = int(np.ceil(float(length.max(initial=0)) / spacing_um)) + 1
    number = np.arange(most, dtype=np.float32)
    own = np.modf(np.abs(lines[:, :1, 0] * 3.7 + off) + number * 0.618034)[0].astype(np.float32)
    at = (number + 0.4 * own) * spacing_um / np.maximum(1.0, length[:, np.newaxis])
    there, place = at < 1, np.minimum(at, 0.999) * (_STEPS - 1)
    step = place.astype(np.int64)
    rest = (place - step)[..., np.newaxis]
    row = np.arange(len(lines))[:, np.newaxis]
    centre = lines[row, step] * (1 - rest) + lines[row, step + 1] * rest
    ahead = tangent[row, step]
    across = np.stack([-ahead[..., 1], ahead[..., 0]], axis=2)
    points = centre + across * (off + np.sign(off) * 2.4 * (own[..., np.newaxis] - 0.5))
    return _kept(points[there], across[there], own[there])


def _tip(ends: Points, tangent: Points, turn: float, off: float) -> Places:
    cos, sin = np.cos(turn), np.sin(turn)
    turned = [tangent[:, 0] * cos - tangent[:, 1] * sin, tangent[:, 0] * sin + tangent[:, 1] * cos]
    outwards = np.stack(turned, axis=1).astype(np.float32)
    own = np.modf(np.abs(ends[:, 0] * 5.3 + turn))[0].astype(np.float32)
    return _kept(ends + outwards * np.float32(off), outwards, own)


def _kept(points: Points, outwards: Points, own: NDArray[np.float32]) -> Places:
    angles = np.arctan2(outwards[:, 1], outwards[:, 0]).astype(np.float32) % np.float32(np.pi)
    return Places(points.astype(np.float32), angles, np.stack([own, np.modf(own * 17.3)[0]], axis=1).astype(np.float32))
