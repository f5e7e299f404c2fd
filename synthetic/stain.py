"""The stain and the scanner of a slide: they turn amounts of two dyes into colours.

Light passes through both dyes (Beer-Lambert): RGB = glass · exp(-(H · haematoxylin + E · eosin)), where 100 in an
8-bit plane of dye is an amount of 1.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]

# Optical density per unit of dye in R, G, B: blue-purple and pink.
_HAEMATOXYLIN = np.array([0.66, 0.72, 0.27])
_EOSIN = np.array([0.09, 0.80, 0.30])
_UNIT = 100.0


@dataclass(frozen=True)
class Stain:
    """One laboratory and scanner: densities per channel, glass in grey levels, and the scanner's faults."""

    haematoxylin: tuple[float, ...]
    eosin: tuple[float, ...]
    glass: tuple[float, ...]
    blur_um: float
    noise: float
    jpeg_quality: int


def draw_stain(seed: int) -> Stain:
    """A laboratory and scanner, from pale to dark and from blue-purple to red-purple."""
    rng = np.random.default_rng([seed, 2])
    # Gamma multiplies every density, glass included.
    gamma = float(np.exp(rng.uniform(-0.18, 0.18)))
    haematoxylin = (_HAEMATOXYLIN + rng.uniform(-0.10, 0.10, 3)) * rng.uniform(0.75, 1.30) * gamma
    eosin = (_EOSIN + rng.uniform((-0.06, -0.15, -0.14), (0.13, 0.15, 0.13))) * rng.uniform(0.65, 1.40) * gamma
    glass = rng.uniform(224, 251) + rng.uniform(-5, 5, 3)
    return Stain(
        haematoxylin=tuple(map(float, haematoxylin)),
        eosin=tuple(map(float, eosin)),
        glass=tuple(map(float, np.clip(glass, 0, 253))),
        blur_um=float(rng.uniform(0.0, 0.42)),
        noise=float(rng.uniform(0.7, 2.6)),
        jpeg_quality=int(rng.integers(72, 93)),
    )


class StainTables:
    """Colours through one stain, by table: 8-bit amounts of dye to 8-bit transmittances."""

    def __init__(self, stain: Stain) -> None:
        self._glass = tuple(round(level) for level in stain.glass)
        self._tables = [_table(stain.haematoxylin, stain.glass), _table(stain.eosin, (255.0,) * 3)]

    def colour(self, haematoxylin: NDArray[np.uint8], eosin: NDArray[np.uint8]) -> Rgb:
        """RGB [height, width, 3] of two planes of dye."""
        through = [
            cv2.applyColorMap(plane, table) for plane, table in zip((haematoxylin, eosin), self._tables, strict=True)
        ]
        return np.asarray(cv2.multiply(through[0], through[1], dst=through[0], scale=1 / 255), dtype=np.uint8)

    def blank(self, height: int, width: int) -> Rgb:
        """RGB of glass without tissue."""
        return np.full((height, width, 3), self._glass, dtype=np.uint8)


def _table(density: tuple[float, ...], full: tuple[float, ...]) -> NDArray[np.uint8]:
    amounts = np.arange(256)[:, np.newaxis, np.newaxis] / _UNIT
    return np.asarray(np.round(np.array(full) * np.exp(-amounts * np.array(density))), dtype=np.uint8)
