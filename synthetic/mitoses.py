"""Places dividing cells: so many per area of tumour, in its epithelium."""

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.mitosis_sprites import HALO_UM
from synthetic.sketch import Material, Sketch
from synthetic.slide_truth import Mitoses, SlideTruth
from synthetic.world_noise import Points, uniforms

_STREAM = 40
# One dividing cell per square of this side makes 7 per square of 112 µm.
_PITCH_UM = 42.0
# Tries per square to find epithelium in it; glands and fronds leave much of a square without.
_TRIES = 12
_SHARES: dict[Mitoses, float] = {"frequent": 1.0, "rare": 0.012}


def place_mitoses(sketch: Sketch, truth: SlideTruth, inside: NDArray[np.uint8]) -> tuple[Points, NDArray[np.float32]]:
    """Points [n, 2] in µm of dividing cells and a uniform number [n] each; marks them as taken in the sketch.

    `inside` is the tumour's plane of the sketch; where only tumour lies, any square has one.
    """
    column, row = _squares(sketch)
    chances = uniforms((truth.seed, _STREAM), column, row, 2 + 2 * _TRIES)
    tries = chances[:, 2:].reshape(-1, _TRIES, 2)
    corners = np.stack([column, row], axis=1).astype(np.float32)[:, np.newaxis]
    points = ((corners + 0.08 + 0.84 * tries) * _PITCH_UM).astype(np.float32)
    fits = _fits(sketch, inside, points.reshape(-1, 2)).reshape(-1, _TRIES)
    chosen = fits.any(axis=1) & (chances[:, 0] < _SHARES[truth.mitoses])
    first = fits.argmax(axis=1)
    found = points[np.arange(len(points)), first][chosen]
    for point in found:
        sketch.disc(point, HALO_UM + 2.0, 255, plane=sketch.taken)
    return found, chances[chosen, 1]


def _squares(sketch: Sketch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows of the squares that the sketch touches."""
    box = sketch.box
    columns = np.arange(np.floor(box.left / _PITCH_UM), np.ceil(box.right / _PITCH_UM), dtype=np.int64)
    rows = np.arange(np.floor(box.top / _PITCH_UM), np.ceil(box.bottom / _PITCH_UM), dtype=np.int64)
    column, row = np.meshgrid(columns, rows)
    return column.ravel(), row.ravel()


def _fits(sketch: Sketch, inside: NDArray[np.uint8], points: Points) -> NDArray[np.bool_]:
    """Whether a point lies some µm inside the tumour's epithelium."""
    epithelium = ((sketch.materials == Material.EPITHELIUM) & (inside > 0)).astype(np.uint8)
    core = cv2.erode(epithelium, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    return np.asarray(sketch.read(np.asarray(core, dtype=np.uint8), points) > 0)
