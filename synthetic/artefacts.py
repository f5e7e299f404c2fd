"""Folds and pen marks: curved strokes over the slide, in µm."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.tissue_outline import Mask

SHARE_OF_SLIDES = 0.15
# Transmittance in R, G, B of a pen's ink.
INKS = ((0.30, 0.72, 0.42), (0.25, 0.38, 0.85), (0.22, 0.20, 0.24))


@dataclass(frozen=True)
class Stroke:
    """A curved band: its centre line [n, 2] in µm (x, y), its width in µm, and its colour's place in `INKS`."""

    line: NDArray[np.float32]
    width_um: float
    ink: int = 0

    def paint(self, plane: NDArray[np.uint8], origin_um: tuple[float, float], um_per_px: float, value: int) -> None:
        """Draws it on a plane whose pixel (0, 0) begins at `origin_um`."""
        fine = 8  # sub-pixel steps, shift = 3
        points = np.round((self.line - np.asarray(origin_um)) / um_per_px * fine - fine / 2).astype(np.int32)
        cv2.polylines(plane, [points], False, value, max(1, round(self.width_um / um_per_px)), cv2.LINE_8, 3)


def draw_fold(rng: np.random.Generator, tissue: Mask, cell_um: float) -> Stroke | None:
    """A fold through the tissue, on some slides."""
    chance, places = rng.random(), np.argwhere(tissue)
    y, x = places[rng.integers(len(places))]
    length, angle = rng.uniform(0.15, 0.35) * max(tissue.shape), rng.uniform(0, np.pi)
    line = _curve(rng, (float(x), float(y)), length, angle, bend=0.12)
    stroke = Stroke(line * cell_um, float(rng.uniform(0.012, 0.022)) * max(tissue.shape) * cell_um)
    return stroke if chance < SHARE_OF_SLIDES else None


def draw_pen(rng: np.random.Generator, tissue: Mask, cell_um: float) -> Stroke | None:
    """A stroke of a pen beside one of the slide's edges, on some slides."""
    chance, edge = rng.random(), rng.integers(4)
    rows, columns = tissue.shape
    along, away = rng.uniform(0.3, 0.7), rng.uniform(0.04, 0.12)
    x, y = ((away, along), (1 - away, along), (along, away), (along, 1 - away))[edge]
    angle = (np.pi / 2 if edge < 2 else 0.0) + rng.uniform(-0.15, 0.15)
    length = rng.uniform(0.25, 0.6) * (rows if edge < 2 else columns)
    line = _curve(rng, (x * columns, y * rows), length, angle, bend=0.06)
    width_um = float(rng.uniform(0.02, 0.035)) * max(tissue.shape) * cell_um
    stroke = Stroke(line * cell_um, width_um, int(rng.integers(len(INKS))))
    return stroke if chance < SHARE_OF_SLIDES else None


def _curve(
    rng: np.random.Generator, centre: tuple[float, float], length: float, angle: float, bend: float
) -> NDArray[np.float32]:
    along = np.linspace(-0.5, 0.5, 40)
    across = bend * (np.sin(2.5 * along * np.pi + rng.uniform(0, 6)) + rng.uniform(-2, 2) * along**2)
    x = centre[0] + length * (along * np.cos(angle) - across * np.sin(angle))
    y = centre[1] + length * (along * np.sin(angle) + across * np.cos(angle))
    return np.stack([x, y], axis=1).astype(np.float32)
