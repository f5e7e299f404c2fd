"""Fine patterns that repeat over the slide: grain of cytoplasm, collagen, myxoid strands, debris.

A texture is 8-bit factors: 128 leaves what it multiplies as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.smooth_noise import wrapped_noise

Texture = NDArray[np.uint8]

PERIOD_UM = 1024
# Drawn at this µm per pixel for every slide, so that a finer scan shows the same fibres.
_DRAWN_MPP = 0.5
_SIDE = round(PERIOD_UM / _DRAWN_MPP)


@dataclass(frozen=True)
class Textures:
    """Textures [side, side] of `PERIOD_UM`, and the fibres' direction in radians from x to y, float32 per 4 µm."""

    grain: Texture
    collagen: Texture
    strands: Texture
    debris: Texture
    direction: NDArray[np.float32]

    def each(self, change: Callable[[Texture], Texture], direction: NDArray[np.float32]) -> "Textures":
        """The same textures, each changed, with another direction."""
        grain, collagen = change(self.grain), change(self.collagen)
        return Textures(grain, collagen, change(self.strands), change(self.debris), direction)


@lru_cache(maxsize=4)
def textures_at(mpp: float, upright: bool) -> Textures:
    """All textures at one resolution; the fibres run upright or across the slide."""
    drawn = _turned() if upright else _drawn()
    side = round(PERIOD_UM / mpp)
    return drawn.each(lambda plane: _resized(plane, side), drawn.direction)


def runs_upright(seed: int) -> bool:
    """Which way a slide's fibres run."""
    return bool(np.random.default_rng([seed, 4]).random() < 0.5)


def fibre_direction(points: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Direction [n] in radians, from x to y, of the collagen at points [n, 2] in µm."""
    direction = (_turned() if runs_upright(seed) else _drawn()).direction
    places = np.floor((points + texture_offset_um(seed)) / 4).astype(np.int64) % len(direction)
    return np.asarray(direction[places[:, 1], places[:, 0]], dtype=np.float32)


def texture_offset_um(seed: int) -> NDArray[np.int64]:
    """Where (x, y) in the textures a slide begins, in whole µm."""
    return np.random.default_rng([seed, 3]).integers(PERIOD_UM // 4, size=2) * 4


@lru_cache(maxsize=1)
def _drawn() -> Textures:
    rng = np.random.default_rng(5)
    bend = wrapped_noise(rng, _SIDE, 80, 80) * 46 + wrapped_noise(rng, _SIDE, 24, 24) * 5
    slope = np.gradient(bend, axis=1)
    grain = wrapped_noise(rng, _SIDE, 1.2, 1.2) * 0.11 + wrapped_noise(rng, _SIDE, 14, 14) * 0.10
    return Textures(
        grain=_factors(1 + grain),
        collagen=_factors(_collagen(rng, bend)),
        strands=_factors(_strands(rng)),
        debris=_factors(_debris(rng)),
        direction=np.arctan(-slope)[::8, ::8].astype(np.float32),
    )


@lru_cache(maxsize=1)
def _turned() -> Textures:
    """The textures mirrored at the diagonal."""
    drawn = _drawn()
    direction = np.asarray(np.pi / 2 - drawn.direction.T, dtype=np.float32)
    return drawn.each(lambda plane: np.ascontiguousarray(plane.T), direction)


def _collagen(rng: np.random.Generator, bend: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense wavy bundles with thin dark and bright lines along them."""
    bundles = wrapped_noise(rng, _SIDE, 60, 5.0)
    lines = wrapped_noise(rng, _SIDE, 30, 1.3)
    clefts = np.clip(np.abs(wrapped_noise(rng, _SIDE, 45, 4.0)) * 5, 0, 1)
    flat = (1 + 0.20 * bundles + 0.22 * lines) * (0.45 + 0.55 * clefts)
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32)
    wavy = cv2.remap(flat, columns, (rows + bend) % _SIDE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(wavy, dtype=np.float32)


def _strands(rng: np.random.Generator) -> NDArray[np.float32]:
    """A wide-meshed net of thin strands: the zero lines of slow noise."""
    nets = [np.exp(-((wrapped_noise(rng, _SIDE, size, size) * size / 4.5) ** 2)) for size in (13, 18)]
    return np.asarray(0.42 + 1.5 * np.maximum(nets[0], nets[1]), dtype=np.float32)


def _debris(rng: np.random.Generator) -> NDArray[np.float32]:
    coarse, fine = wrapped_noise(rng, _SIDE, 3.0, 3.0), wrapped_noise(rng, _SIDE, 1.1, 1.1)
    return np.asarray(1 + 0.22 * coarse + 0.24 * fine + 0.16 * wrapped_noise(rng, _SIDE, 30, 30), dtype=np.float32)


def _factors(plane: NDArray[np.float32]) -> Texture:
    return np.asarray(np.clip(plane * 128, 0, 255), dtype=np.uint8)


def _resized(texture: Texture, side: int) -> Texture:
    if side == texture.shape[0]:
        return texture
    method = cv2.INTER_LINEAR if side > texture.shape[0] else cv2.INTER_AREA
    return np.asarray(cv2.resize(texture, (side, side), interpolation=method), dtype=np.uint8)
