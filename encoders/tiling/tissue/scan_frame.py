"""Finds what the scanner did not light: black around a scanned area that is smaller than its picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# HSV value (of 255) of what is black through and through; ink and the darkest nuclei let more light pass.
_UNLIT_VALUE = 8
# Nuclei are as dark but more coloured; what is darker still has no colour to speak of.
_DARK_VALUE, _DARK_SATURATION, _BLACK_VALUE = 87, 109, 39
# A dark area that takes this part of one of the picture's sides is its frame.
_SIDE_SHARE = 0.25
# Median of |Laplacian| of luminance: a frame has no texture.
_ROUGHEST = 4.0


def find_frame(rgb: NDArray[np.uint8]) -> Mask:
    """Bool [h, w] of an RGB overview [h, w, 3]: black, or dark and smooth along a side; with the pixel next to it."""
    unlit = find_unlit(rgb)
    dark = find_dark(rgb)
    framed = unlit | _along_a_side(dark, rgb) if _sides_share(dark) >= _SIDE_SHARE else unlit
    if not framed.any():
        return framed
    # The pixel across the border is half lit, and would pass for tissue.
    return np.asarray(cv2.dilate(framed.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


def find_unlit(rgb: NDArray[np.uint8]) -> Mask:
    """Bool [h, w]: black through and through, as nothing is that lets light pass."""
    return in_range(rgb, (0, 0, 0), (_UNLIT_VALUE, _UNLIT_VALUE, _UNLIT_VALUE))


def find_dark(rgb: NDArray[np.uint8]) -> Mask:
    """Bool [h, w]: dark and hardly coloured, as black ink and frames are and nuclei are not."""
    hsv = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), dtype=np.uint8)
    black = in_range(hsv, (0, 0, 0), (180, 255, _BLACK_VALUE))
    return black | in_range(hsv, (0, 0, 0), (180, _DARK_SATURATION, _DARK_VALUE))


def in_range(picture: NDArray[np.uint8], lowest: tuple[int, int, int], highest: tuple[int, int, int]) -> Mask:
    """Bool [h, w]: where all three channels lie between the bounds, both included."""
    return np.asarray(cv2.inRange(picture, np.array(lowest), np.array(highest)), dtype=np.bool_)


def find_roughness(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """|Laplacian| of luminance [h, w]: ink and frames have little, tissue has much."""
    laplacian = cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
    return np.asarray(np.abs(laplacian), dtype=np.float32)


def _along_a_side(dark: Mask, rgb: NDArray[np.uint8]) -> Mask:
    """The smooth connected parts of `dark` that each take enough of a side."""
    count, labels = cv2.connectedComponents(dark.astype(np.uint8), connectivity=8)
    roughness = find_roughness(rgb)
    framing = np.zeros(count, dtype=np.bool_)
    for label in np.unique(np.concatenate(_sides(labels))):
        area = labels == label
        framing[label] = label > 0 and _sides_share(area) >= _SIDE_SHARE and np.median(roughness[area]) <= _ROUGHEST
    return np.asarray(framing[labels], dtype=np.bool_)


def _sides_share(area: Mask) -> float:
    return max(float(side.mean()) for side in _sides(area))


def _sides(picture: NDArray[np.generic]) -> tuple[NDArray[np.generic], ...]:
    return picture[0], picture[-1], picture[:, 0], picture[:, -1]
