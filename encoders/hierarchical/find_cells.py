"""Cells in the maps of a HoVer-style network: nuclei that touch are parted by a watershed over their distance maps.

The rule is HoVer-Net's (Graham et al., Medical Image Analysis 2019, doi 10.1016/j.media.2019.101563), with the numbers
of CellViT's public code, whatever the magnification. Pure functions of one picture's maps: they keep nothing, so any
number of threads may call them, and most of the time is spent in OpenCV, numpy and the watershed, without the GIL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from encoders.errors import EncoderOverflowed

# Pixels; blobs and markers below are dropped.
_MIN_PX: Final = 10
_SOBEL_PX: Final = 21
# Of 0 … 1: where the distance maps fall as steeply as this, one nucleus ends.
_EDGE: Final = 0.4

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Cells:
    """The K cells of a picture, in ascending number; pixels of the picture, x to the right and y down.

    A pixel's coordinates are those of its middle: the picture's first is (0, 0).
    """

    instances: Labels
    """[H, W]: a cell's number on its pixels, 0 elsewhere. May hold numbers that are no cell's: see `find_cells`."""
    numbers: NDArray[np.int32]
    """[K], from 1, with gaps."""
    centroids: NDArray[np.float64]
    """[K, 2], x and y."""
    boxes: NDArray[np.int32]
    """[K, 4]: y0, x0, y1, x1; the last two are outside."""
    kinds: NDArray[np.int32]
    """[K]: the most frequent kind on its pixels other than background; 0 where all of them are background."""
    kind_shares: NDArray[np.float64]
    """[K]: the part of its pixels that are of this kind, 0 … 1."""
    contours: Sequence[NDArray[np.int32]]
    """K times [n, 2]: x and y of the corners of its outline, n ≥ 3, each a pixel of the cell."""


def find_cells(nucleus: NDArray[np.integer], kind: NDArray[np.integer], distance: NDArray[np.floating]) -> Cells:
    """Classes per pixel [H, W] (`nucleus` 0 or 1, `kind` 0 = background) and distance maps [H, W, 2] → cells.

    Cells as published: where not a single pixel is background, the lowest number is taken for it and is no cell, and
    neither is an outline of one or two corners. Both stay in `instances`.
    Raises ValueError when the shapes differ, EncoderOverflowed when a distance is not finite.
    """
    if nucleus.ndim != 2 or kind.shape != nucleus.shape or distance.shape != (*nucleus.shape, 2):
        raise ValueError(f"The maps are {nucleus.shape}, {kind.shape} and {distance.shape}, not of one picture.")
    if not np.isfinite(distance).all():
        raise EncoderOverflowed("The cell network's distances are not finite; use float32 in its manifest.")
    instances = _part(_without_small(_label(nucleus > 0)) > 0, distance)
    return _describe(instances, kind)


def _part(blobs: NDArray[np.bool_], distance: NDArray[np.floating]) -> Labels:
    """Numbers the nuclei among the blobs; a blob without a marker is none."""
    edge = np.maximum(_steepness(distance[..., 0], dx=1, dy=0), _steepness(distance[..., 1], dx=0, dy=1))
    # In float64 from here: whether a pixel reaches 0.4 must not depend on how 0.4 rounds in float32.
    edge = np.where(blobs, edge.astype(np.float64), 0.0)
    inside = _without_holes(blobs & (edge < _EDGE)).astype(np.uint8)
    opened = cv2.morphologyEx(inside, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    markers = _without_small(_label(opened))
    landscape = -cv2.GaussianBlur(np.where(blobs, 1.0 - edge, 0.0), (3, 3), 0)
    parted: Labels = watershed(landscape, markers=markers, mask=blobs)  # type: ignore[no-untyped-call]
    return parted


def _steepness(distance: NDArray[np.floating], *, dx: int, dy: int) -> NDArray[np.float32]:
    """How fast the distance falls along an axis: 0 … 1 over the whole picture; 1 everywhere where it is constant."""
    scaled = _zero_to_one(np.ascontiguousarray(distance, dtype=np.float32))
    slope = cv2.Sobel(scaled, cv2.CV_64F, dx, dy, ksize=_SOBEL_PX)
    return 1 - _zero_to_one(np.asarray(slope, np.float64))


def _zero_to_one(values: NDArray[np.floating]) -> NDArray[np.float32]:
    scaled = cv2.normalize(values, np.empty(values.shape, np.float32), 0, 1, cv2.NORM_MINMAX, cv2.CV_32F)
    return np.asarray(scaled, np.float32)


def _label(mask: NDArray[np.generic]) -> Labels:
    """Numbers pieces that hang together by their sides, from the top."""
    labels: Labels = ndimage.label(mask)[0]
    return labels


def _without_small(labels: Labels) -> Labels:
    """Pieces of fewer than 10 pixels become background; the others keep their numbers."""
    kept = np.bincount(labels.ravel()) >= _MIN_PX
    return np.where(kept[labels], labels, 0)


def _without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pieces of background that reach no side of the picture are filled; a third of what scipy's own takes."""
    outside = _label(~mask)
    sides = np.concatenate([outside[0], outside[-1], outside[:, 0], outside[:, -1]])
    reaching = np.zeros(int(outside.max(initial=0)) + 1, bool)
    reaching[sides] = True
    # 0 is the mask, whether it reaches a side or not.
    reaching[0] = False
    return ~reaching[outside]


def _describe(instances: Labels, kind: NDArray[np.integer]) -> Cells:
    sizes = np.bincount(instances.ravel())
    rows = []
    boxes = ndimage.find_objects(instances)
    of_kind = _count_kinds(instances, kind, len(sizes))
    # The first number is taken for background, which it is but where there is none.
    for number in np.flatnonzero(sizes)[1:]:
        ys, xs = boxes[number - 1]
        inside = (instances[ys, xs] == number).view(np.uint8)
        contour = cv2.findContours(inside, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0][0].reshape(-1, 2)
        if len(contour) < 3:
            continue
        m = cv2.moments(inside)
        counts = of_kind[number]
        likeliest = int(counts[1:].argmax()) + 1 if counts[1:].any() else 0
        rows.append(
            (
                number,
                (m["m10"] / m["m00"] + xs.start, m["m01"] / m["m00"] + ys.start),
                (ys.start, xs.start, ys.stop, xs.stop),
                likeliest,
                # The published share: one in a million of a pixel is added to the cell's size.
                counts[likeliest] / (sizes[number] + 1e-6),
                contour + np.array([xs.start, ys.start], np.int32),
            )
        )
    numbers, centroids, corners, kinds, shares, contours = zip(*rows, strict=True) if rows else ((),) * 6
    return Cells(
        instances=instances,
        numbers=np.array(numbers, np.int32),
        centroids=np.array(centroids, np.float64).reshape(-1, 2),
        boxes=np.array(corners, np.int32).reshape(-1, 4),
        kinds=np.array(kinds, np.int32),
        kind_shares=np.array(shares, np.float64),
        contours=contours,
    )


def _count_kinds(instances: Labels, kind: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """[count, kinds]: pixels of each kind in each instance."""
    kinds = int(kind.max(initial=0)) + 1
    pairs = instances.astype(np.int64) * kinds + kind
    return np.bincount(pairs.ravel(), minlength=count * kinds).reshape(count, kinds)
