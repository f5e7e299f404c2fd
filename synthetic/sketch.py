"""A part of a slide as materials, at 1 µm per pixel whatever the slide's resolution, and the nuclei to put on it.

Sketches are what makes a slide the same slide at any µm/px: everything that decides whether a nucleus is there reads
the sketch, not the picture.
"""

from dataclasses import dataclass
from enum import IntEnum, auto

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.nucleus_sprites import Sprite
from synthetic.world_noise import Box, Points

Plane = NDArray[np.uint8]

# Steps of sub-pixel coordinates when polygons are drawn (shift = 3).
_FINE = 8


class Material(IntEnum):
    """What a place is made of, nuclei aside."""

    GLASS = 0
    LUMEN = auto()
    STROMA = auto()
    EPITHELIUM = auto()
    NECROSIS = auto()
    KERATIN = auto()
    PALE_KERATIN = auto()
    WALL = auto()
    BLOOD = auto()
    SECRETION = auto()


@dataclass(frozen=True)
class Places:
    """Where nuclei may lie: points [n, 2] in µm, directions [n] in radians or NaN for any, uniform numbers [n, 2]."""

    points: Points
    angles: NDArray[np.float32]
    chances: NDArray[np.float32]

    def where(self, keep: NDArray[np.bool_]) -> "Places":
        """The places for which `keep` [n] is true."""
        return Places(self.points[keep], self.angles[keep], self.chances[keep])


@dataclass(frozen=True)
class Nuclei:
    """Sprites and which of them, numbers [n], go where, points [n, 2] in µm."""

    sprites: tuple[Sprite, ...]
    numbers: NDArray[np.int64]
    points: Points


class Sketch:
    """Materials of a box with whole µm as corners, `materials` uint8 [rows, columns]; `taken` marks dividing cells."""

    def __init__(self, box: Box) -> None:
        self.box = box
        shape = (round(box.bottom - box.top), round(box.right - box.left))
        self.materials: Plane = np.full(shape, Material.STROMA, dtype=np.uint8)
        self.taken: Plane = np.zeros(shape, dtype=np.uint8)

    def polygon(self, corners: Points, material: Material, *, plane: Plane | None = None) -> None:
        """Fills a polygon of corners [n, 2] in µm."""
        target = self.materials if plane is None else plane
        cv2.fillPoly(target, [self.fixed(corners)], int(material), cv2.LINE_8, 3)

    def stroke(self, line: Points, width_um: float, material: Material, *, plane: Plane | None = None) -> None:
        """Draws an open line [n, 2] in µm with round ends."""
        target = self.materials if plane is None else plane
        cv2.polylines(target, [self.fixed(line)], False, int(material), max(1, round(width_um)), cv2.LINE_8, 3)

    def disc(self, centre: Points, radius_um: float, material: int, *, plane: Plane | None = None) -> None:
        """Fills a circle around a point [2] in µm."""
        target = self.materials if plane is None else plane
        x, y = self.fixed(centre[np.newaxis])[0].tolist()
        cv2.circle(target, (x, y), round(radius_um * _FINE), int(material), -1, cv2.LINE_8, 3)

    def fixed(self, points: Points) -> NDArray[np.int32]:
        """Points in µm as OpenCV's fixed-point pixels of this sketch."""
        return np.round((points - (self.box.left + 0.5, self.box.top + 0.5)) * _FINE).astype(np.int32)

    def read(self, plane: Plane, points: Points) -> NDArray[np.uint8]:
        """The plane's values [n] at points [n, 2] in µm; 0 (glass) outside of the sketch."""
        column = np.floor(points[:, 0] - self.box.left).astype(np.int64)
        row = np.floor(points[:, 1] - self.box.top).astype(np.int64)
        rows, columns = plane.shape
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        found = plane[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
        return np.where(inside, found, 0).astype(np.uint8)

    def is_free(self, points: Points, material: Material) -> NDArray[np.bool_]:
        """Whether each point lies in this material and not on a dividing cell."""
        return np.asarray((self.read(self.materials, points) == material) & (self.read(self.taken, points) == 0))
