"""Places necrosis, tumour and fat in the tissue: their areas are the truth's, their shapes the seed's."""

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.slide_truth import QUADRANTS, Quadrant
from synthetic.smooth_noise import relative_noise
from synthetic.tissue_outline import Mask

NECROSIS_SHARE = (0.078, 0.115)
# Of the tissue's bounding box, between necrosis and its midlines.
_MIDLINE_GAP = 0.03


def quadrant_box(tissue: Mask, quadrant: Quadrant, gap: float = 0.0) -> tuple[slice, slice]:
    """Rows and columns of a quadrant of the tissue's bounding box, `gap` of the box away from its midlines."""
    left, top, width, height = cv2.boundingRect(tissue.astype(np.uint8))
    lower, right = divmod(QUADRANTS.index(quadrant), 2)
    return _half(top, height, bool(lower), gap), _half(left, width, bool(right), gap)


def place_necrosis(rng: np.random.Generator, tissue: Mask, quadrant: Quadrant) -> Mask | None:
    """One connected blob inside the quadrant and the tissue; None where this tissue leaves no room for it."""
    room = np.zeros_like(tissue)
    box = quadrant_box(tissue, quadrant, _MIDLINE_GAP)
    room[box] = tissue[box]
    cells = round(float(rng.uniform(*NECROSIS_SHARE)) * int(tissue.sum()))
    padded = cv2.distanceTransform(np.pad(room, 1).astype(np.uint8), cv2.DIST_L2, 3)
    depth = np.asarray(padded, dtype=np.float32)[1:-1, 1:-1]
    # A few cells of viable tissue stay between necrosis and glass.
    depth[depth < 0.012 * max(tissue.shape)] = 0
    if (depth > 0).sum() < 1.3 * cells:
        return None
    return _grown(rng, depth, cells)


def place_tumour(rng: np.random.Generator, viable: Mask, fraction: float, necrosis: Mask) -> Mask:
    """Blobs that cover this fraction of the viable tissue, mostly around the necrosis if there is any."""
    field = _blobs(rng, viable.shape, _centres(rng, viable, necrosis))
    field += 0.13 * relative_noise(rng, field.shape, 9) + 0.11 * relative_noise(rng, field.shape, 22)
    return covering(field, viable, fraction)


def place_fat(rng: np.random.Generator, viable: Mask) -> Mask:
    """Lobules of fat."""
    field = relative_noise(rng, viable.shape, 8) + 0.3 * relative_noise(rng, viable.shape, 20)
    return covering(field, viable, float(rng.uniform(0.25, 0.4)))


def covering(field: NDArray[np.float32], within: Mask, fraction: float) -> Mask:
    """The places with the highest values that make up this fraction of `within`."""
    count = round(fraction * int(within.sum()))
    chosen = np.zeros(within.shape, dtype=np.bool_)
    places = np.flatnonzero(within)
    chosen.flat[places[np.argsort(-field.flat[places], kind="stable")[:count]]] = True
    return chosen


def _half(start: int, length: int, second: bool, gap: float) -> slice:
    middle = start + length / 2
    if second:
        return slice(int(np.ceil(middle + gap * length)), start + length)
    return slice(start, int(middle - gap * length))


def _grown(rng: np.random.Generator, depth: NDArray[np.float32], cells: int) -> Mask | None:
    """About so many cells around the deepest one, connected; None where the noise cut too much off."""
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    rows, columns = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]].astype(np.float32)
    away = np.hypot(rows - y, columns - x) / np.sqrt(cells / np.pi)
    field = -away + 0.16 * relative_noise(rng, depth.shape, 12) + 0.07 * relative_noise(rng, depth.shape, 30)
    chosen = covering(np.asarray(field, dtype=np.float32), depth > 0, cells / max(1, int((depth > 0).sum())))
    _, labels = cv2.connectedComponents(chosen.astype(np.uint8), connectivity=4)
    blob: Mask = labels == labels[y, x]
    return blob if labels[y, x] and blob.sum() > 0.93 * cells else None


def _centres(rng: np.random.Generator, viable: Mask, necrosis: Mask) -> list[tuple[float, float]]:
    """(x, y) in cells of one to three tumour blobs."""
    places = np.argwhere(viable)
    picked = places[rng.integers(len(places), size=rng.integers(1, 4))]
    if necrosis.any() and rng.random() < 0.75:
        picked = np.vstack([np.argwhere(necrosis).mean(axis=0), picked[:-1]])
    return [(float(x), float(y)) for y, x in picked]


def _blobs(rng: np.random.Generator, shape: tuple[int, ...], centres: list[tuple[float, float]]) -> NDArray[np.float32]:
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    field = np.full(shape, -9.0, dtype=np.float32)
    for x, y in centres:
        wide, high = rng.uniform(0.2, 0.4, size=2) * max(shape)
        field = np.maximum(field, rng.uniform(0.0, 0.3) - np.hypot((columns - x) / wide, (rows - y) / high))
    return field
