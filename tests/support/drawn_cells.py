"""Drawn maps of nuclei, and weights and pictures for the network that finds them: the same bits on every machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hashed_numbers import hashed_uniform
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Ellipse:
    """A nucleus: middle, half axes in pixels, kind; with `hole`, that part of it from the middle is missing."""

    x: float
    y: float
    a: float
    b: float
    kind: int = 1
    hole: float = 0.0


@dataclass(frozen=True)
class DrawnMaps:
    """What `find_cells` takes."""

    nucleus: NDArray[np.int64]
    kind: NDArray[np.int64]
    distance: NDArray[np.float32]


def draw_maps(width: int, height: int, cells: Sequence[Ellipse], noise: float = 0.02) -> DrawnMaps:
    """Where ellipses overlap the nearer one wins; `noise` is that of the distance maps."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    kind = np.zeros((height, width), np.int64)
    distance = np.zeros((height, width, 2), np.float32)
    best = np.full((height, width), np.inf, np.float32)
    for c in cells:
        dx, dy = (xs - np.float32(c.x)) / np.float32(c.a), (ys - np.float32(c.y)) / np.float32(c.b)
        d = dx * dx + dy * dy
        inside = (d <= 1) & (d < best) & (d >= c.hole * c.hole)
        best[inside], kind[inside] = d[inside], c.kind
        distance[inside, 0], distance[inside, 1] = dx[inside], dy[inside]
    distance += np.float32(noise) * hashed_uniform("noise", height, width, 2).numpy()
    return DrawnMaps((kind > 0).astype(np.int64), kind, distance)


def _with_kinds(maps: DrawnMaps, kind: NDArray[np.int64]) -> DrawnMaps:
    return DrawnMaps(maps.nucleus, kind, maps.distance)


def drawn_cases() -> dict[str, DrawnMaps]:
    """By name: what a picture may hold, from nothing to nothing but nuclei."""
    five = [Ellipse(12 + 20 * i, 30, 8, 9, 1 + i) for i in range(5)]
    mixed = draw_maps(112, 64, five)
    # By columns: half of one kind and half of another, a kind mostly seen as background, one that is nothing else …
    kinds = mixed.kind.copy()
    kinds[:, :12], kinds[:, 24:35], kinds[:, 40:60], kinds[:, 80:92] = 5, 0, 0, 3
    border = [
        Ellipse(2, 3, 16, 13), Ellipse(60, 0, 14, 13, 2), Ellipse(125, 4, 14, 15, 3), Ellipse(3, 50, 13, 14, 4),
        Ellipse(126, 60, 15, 13, 5), Ellipse(4, 92, 15, 14), Ellipse(66, 94, 15, 12, 2), Ellipse(123, 95, 15, 14, 3),
    ]  # fmt: skip
    touching = [
        Ellipse(20, 20, 10, 9), Ellipse(37, 20, 9, 10, 2), Ellipse(28, 35, 9, 8, 3),  # three
        Ellipse(70, 30, 12, 9), Ellipse(74, 33, 12, 9, 4),  # one over the other
        Ellipse(20, 70, 10, 4, 5), Ellipse(41, 70, 12, 4),  # end to end
    ]  # fmt: skip
    specks = [Ellipse(8 + 18 * i, 12, 1 + 1.5 * i, 1 + 1.5 * i) for i in range(6)]
    corner = draw_maps(48, 48, [Ellipse(14, 14, 7, 7), Ellipse(33, 33, 7, 7, 2)])
    bridge = corner.nucleus.copy()
    bridge[19:24, 19:24] = 1
    bridge[24:29, 24:29] = 1  # meets the other by a corner alone
    everywhere = draw_maps(48, 48, [Ellipse(12, 12, 40, 40), Ellipse(36, 36, 40, 40, 2)])
    stripes = draw_maps(64, 48, [Ellipse(8 + 16 * i, 24, 9, 200, i % 2 + 1) for i in range(4)])
    return {
        "none": draw_maps(64, 64, []),
        "white": draw_maps(64, 64, [], noise=0),
        "one": draw_maps(64, 48, [Ellipse(30, 20, 9, 7, 4)]),
        "all_kinds": mixed,
        "mixed_kinds": _with_kinds(mixed, kinds),
        "kinds_unseen": _with_kinds(mixed, np.zeros_like(kinds)),
        "border": draw_maps(128, 96, border),
        "touching": draw_maps(96, 96, touching),
        "touching_noise": draw_maps(96, 96, touching, noise=0.3),
        "specks": draw_maps(112, 32, specks),
        "holes": draw_maps(64, 64, [Ellipse(20, 20, 14, 14, 1, hole=0.4), Ellipse(46, 46, 12, 12, 2, hole=0.75)]),
        "corner": DrawnMaps(bridge, corner.kind, corner.distance),
        "flat": DrawnMaps(mixed.nucleus, mixed.kind, np.full_like(mixed.distance, 0.25)),
        "no_background": DrawnMaps(np.ones_like(everywhere.nucleus), everywhere.kind, everywhere.distance),
        "stripes": DrawnMaps(np.ones_like(stripes.nucleus), stripes.kind, stripes.distance),
    }


def cellvit_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor under its published name that keeps every part at work; products keep their size from layer to layer."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    values = hashed_uniform(name, *shape) * math.sqrt(3)
    if name.endswith(("bias", "running_mean", "pos_embed", "cls_token")):
        return values * 0.3
    if len(shape) == 1:
        return 1 + 0.2 * values
    # Transposed convolutions, 2 x 2 pixels wide, have their inputs first.
    fan_in = shape[0] if len(shape) == 4 and shape[2] == 2 else math.prod(shape[1:])
    return values / math.sqrt(fan_in)


def drawn_pictures(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """[count, height, width, 3], of every brightness, the first white."""
    pictures = ((hashed_uniform("pictures", count, height, width, 3).numpy() + 1) * 127.5).astype(np.uint8)
    pictures[0] = 255
    return pictures
