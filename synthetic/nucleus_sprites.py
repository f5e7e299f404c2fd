"""Small pictures of nuclei, drawn once per kind and µm/px and then put down many times.

A sprite is an 8-bit plane of haematoxylin whose middle is the nucleus' centre. Sprites of a kind differ in size, shape,
chromatin and darkness; they are ordered by direction, so that nuclei can lie along a wall or a fibre.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Sprite = NDArray[np.uint8]

DIRECTIONS = 16
VARIANTS = 28
# Sizes beyond so many deviations do not occur: single giants would swallow their neighbours.
_CLIP = 1.7
# No nucleus reaches farther from its centre.
REACH_UM = 15.0


@dataclass(frozen=True)
class NucleusKind:
    """Radius in µm and its deviation as a share, long over short axis, and looks, in amounts of haematoxylin."""

    radius_um: float
    spread: float
    elongation: float
    dark: float
    dark_spread: float
    nucleolus: float = 0.0
    # How much paler the inside is than the rim, 0 … 1.
    vesicular: float = 0.25
    irregular: float = 0.05


@lru_cache(maxsize=64)
def sprites_of(kind: NucleusKind, mpp: float) -> tuple[Sprite, ...]:
    """`DIRECTIONS` × `VARIANTS` sprites; sprite number = direction · `VARIANTS` + variant.

    Direction d is the long axis at (d + ½)/`DIRECTIONS` of half a turn, from x towards y.
    """
    rng = np.random.default_rng(round(kind.radius_um * 1000))
    return tuple(
        _drawn(rng, kind, (direction + rng.random()) * np.pi / DIRECTIONS, mpp)
        for direction in range(DIRECTIONS)
        for _ in range(VARIANTS)
    )


def towards(angle: NDArray[np.float32], chance: NDArray[np.float32]) -> NDArray[np.int64]:
    """Numbers [n] of sprites whose long axis lies along these angles in radians, one of their variants by chance."""
    direction = np.floor(angle / np.pi * DIRECTIONS).astype(np.int64) % DIRECTIONS
    variant = np.minimum((chance * VARIANTS).astype(np.int64), VARIANTS - 1)
    return np.asarray(direction * VARIANTS + variant, dtype=np.int64)


def anyhow(chance: NDArray[np.float32]) -> NDArray[np.int64]:
    """Numbers [n] of sprites in any direction."""
    return np.minimum((chance * DIRECTIONS * VARIANTS).astype(np.int64), DIRECTIONS * VARIANTS - 1)


def _drawn(rng: np.random.Generator, kind: NucleusKind, angle: float, mpp: float) -> Sprite:
    size = 1 + kind.spread * float(np.clip(rng.standard_normal(), -_CLIP, _CLIP))
    radius = kind.radius_um * size
    stretch = np.sqrt(kind.elongation * np.exp(0.08 * rng.standard_normal()))
    dark = kind.dark * float(np.exp(kind.dark_spread * np.clip(rng.standard_normal(), -_CLIP, _CLIP)))
    wobble = kind.irregular * rng.standard_normal(2), rng.uniform(0, 2 * np.pi, 2)
    chromatin = rng.standard_normal((9, 9)).astype(np.float32)
    spots = rng.uniform(-0.45, 0.45, size=(2, 2))
    x, y = _grid(radius * stretch * 1.15 + 1.0, mpp)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    u, v = along / (radius * stretch), across / (radius / stretch)
    turn = np.arctan2(v, u)
    rim = 1 + wobble[0][0] * np.cos(2 * turn + wobble[1][0]) + wobble[0][1] * np.cos(3 * turn + wobble[1][1])
    depth = (1 - np.hypot(u, v) / rim) * radius / stretch
    inside = np.clip(0.5 + depth / max(mpp, 0.35), 0, 1)
    texture = cv2.resize(chromatin, x.shape[::-1], interpolation=cv2.INTER_CUBIC)
    amount = 1 - kind.vesicular * np.clip(depth / 1.6, 0, 1) + 0.13 * texture * np.clip(depth, 0, 1)
    for place in spots[: 1 + (rng.random() < 0.35)]:
        away = np.hypot(along / radius - place[0], across / radius - place[1]) * radius
        amount = amount + kind.nucleolus * np.clip(1.5 - away / 1.1, 0, 1)
    return np.asarray(np.clip(dark * amount * inside, 0, 255), dtype=np.uint8)


def _grid(reach_um: float, mpp: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """µm from the middle of a square of pixels with an odd side."""
    half = int(np.ceil(min(reach_um, REACH_UM) / mpp))
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * mpp
    return x, y
