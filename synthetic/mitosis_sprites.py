"""Small pictures of dividing cells: a pale swollen cell with black-violet plates in it.

Each is two 8-bit planes: what is left of both dyes at most (the pale cell) and what of both is added (the plates).
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

HALO_UM = 6.6
COUNT = 48
# Amounts of dye that stay in the clear cell.
_CLEAR = 12
_SIDE_UM = 2 * (HALO_UM + 2)


@lru_cache(maxsize=4)
def mitosis_sprites(mpp: float) -> tuple[tuple[Plane, Plane], ...]:
    """`COUNT` pairs (ceiling, plates), each square with an odd side."""
    rng = np.random.default_rng(12)
    return tuple(_drawn(rng, number % 4, mpp) for number in range(COUNT))


def _drawn(rng: np.random.Generator, phase: int, mpp: float) -> tuple[Plane, Plane]:
    half = int(np.ceil(_SIDE_UM / 2 / mpp))
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * mpp
    halo = HALO_UM * rng.uniform(0.95, 1.08)
    ceiling = np.clip((np.hypot(x, y * rng.uniform(0.9, 1.1)) - halo) / 0.6, 0, 1) * (255 - _CLEAR) + _CLEAR
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    plates = (_metaphase, _anaphase, _star, _telophase)[phase](rng, along, across)
    return ceiling.astype(np.uint8), np.asarray(255 * np.clip(plates / max(mpp, 0.3) + 0.5, 0, 1), dtype=np.uint8)


# Each gives how deep in µm a place lies inside the chromosomes, negative outside.
def _bar(along: NDArray[np.float64], across: NDArray[np.float64], long: float, thick: float) -> NDArray[np.float64]:
    beyond = np.hypot(np.maximum(np.abs(along) - long / 2, 0), across)
    return np.asarray(thick / 2 - beyond)


def _ragged(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    rough = rng.standard_normal((12, 12)).astype(np.float32)
    return np.asarray(cv2.resize(rough, shape[::-1], interpolation=cv2.INTER_LINEAR) * 0.25, dtype=np.float64)


def _metaphase(
    rng: np.random.Generator, along: NDArray[np.float64], across: NDArray[np.float64]
) -> NDArray[np.float64]:
    return _bar(along, across, rng.uniform(5.5, 7.0), 2.6) + _ragged(rng, along.shape)


def _anaphase(rng: np.random.Generator, along: NDArray[np.float64], across: NDArray[np.float64]) -> NDArray[np.float64]:
    apart, bend = rng.uniform(2.0, 2.6), 0.045
    upper = _bar(along, across - apart + bend * along**2, 5.2, 2.0)
    lower = _bar(along, across + apart - bend * along**2, 5.2, 2.0)
    return np.maximum(upper, lower) + _ragged(rng, along.shape)


def _telophase(
    rng: np.random.Generator, along: NDArray[np.float64], across: NDArray[np.float64]
) -> NDArray[np.float64]:
    apart = rng.uniform(3.4, 4.0)
    plates = np.maximum(_bar(along, across - apart, 3.6, 2.1), _bar(along, across + apart, 3.6, 2.1))
    return plates + _ragged(rng, along.shape)


def _star(rng: np.random.Generator, along: NDArray[np.float64], across: NDArray[np.float64]) -> NDArray[np.float64]:
    turn, points = np.arctan2(across, along), rng.integers(5, 8)
    reach = 2.7 + 1.2 * np.cos(points * turn + rng.uniform(0, 6))
    return np.asarray(reach - np.hypot(along, across) + _ragged(rng, along.shape))
