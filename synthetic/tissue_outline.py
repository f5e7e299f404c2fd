"""The outline of the tissue on the glass: one to three irregular pieces with a few holes."""

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.smooth_noise import relative_noise

Mask = NDArray[np.bool_]

# The outline is drawn on a square and then stretched, so that it does not depend on the slide's size.
_SQUARE = 256
# Share of each side of the slide that the tissue spans.
_FILL = (0.60, 0.78)


def tissue_mask(rng: np.random.Generator, shape: tuple[int, int]) -> Mask:
    """Bool [rows, columns] of the slide's map: tissue without its holes."""
    outline = _pieces(rng)
    spans = rng.uniform(*_FILL, size=2)
    centre = 0.5 + (1 - spans) * rng.uniform(-0.17, 0.17, size=2)
    tissue = _stretched(outline, centre, spans, shape)
    return tissue & ~_holes(rng, shape)


def _pieces(rng: np.random.Generator) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:_SQUARE, 0:_SQUARE].astype(np.float32) * (1.6 / _SQUARE) - 0.8
    field = np.full((_SQUARE, _SQUARE), -2.0, dtype=np.float32)
    places = rng.uniform(0, 2 * np.pi) + np.arange(3) * 2.1
    for place in places[: rng.integers(1, 4)]:
        reach, wide, high = rng.uniform(0.08, 0.46), *rng.uniform(0.20, 0.30, size=2)
        x, y = columns - reach * np.cos(place), rows - reach * np.sin(place)
        field = np.maximum(field, 1 - np.hypot(x / wide, y / high))
    field += 0.17 * relative_noise(rng, field.shape, 5) + 0.06 * relative_noise(rng, field.shape, 16)
    return _largest((field > 0).astype(np.uint8), 3)


def _largest(mask: NDArray[np.uint8], pieces: int) -> NDArray[np.uint8]:
    """The largest pieces of the mask, without those far smaller than the first."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA])[:pieces] + 1
    kept = [label for label in order if stats[label, cv2.CC_STAT_AREA] > 0.05 * stats[order[0], cv2.CC_STAT_AREA]]
    return np.isin(labels, kept).astype(np.uint8)


def _stretched(
    outline: NDArray[np.uint8], centre: NDArray[np.float64], spans: NDArray[np.float64], shape: tuple[int, int]
) -> Mask:
    """The outline with its bounding box laid over a box of the map given in shares of its sides (x, y)."""
    left, top, width, height = cv2.boundingRect(outline)
    cut = outline[top : top + height, left : left + width].astype(np.float32)
    size = (round(float(spans[0]) * shape[1]), round(float(spans[1]) * shape[0]))
    x, y = round(float(centre[0]) * shape[1] - size[0] / 2), round(float(centre[1]) * shape[0] - size[1] / 2)
    tissue = np.zeros(shape, dtype=np.bool_)
    soft = cv2.GaussianBlur(cut, (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE)
    tissue[y : y + size[1], x : x + size[0]] = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR) > 0.5
    return tissue


def _holes(rng: np.random.Generator, shape: tuple[int, int]) -> Mask:
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    ragged = 0.25 * relative_noise(rng, shape, 30)
    holes = np.zeros(shape, dtype=np.bool_)
    for _ in range(rng.integers(1, 6)):
        x, y = rng.uniform(0.2, 0.8, size=2) * (shape[1], shape[0])
        wide, high = rng.uniform(0.012, 0.04, size=2) * max(shape)
        holes |= np.hypot((columns - x) / wide, (rows - y) / high) + ragged < 1
    return holes
