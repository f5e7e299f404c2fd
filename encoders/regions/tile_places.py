"""Where a slide's tiles lie, and which of them lie in a region.

A tile belongs to a region when its centre lies inside. Imports no torch: the API chooses tiles too, and names regions.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.errors import RegionTooSmall
from encoders.regions.outline import Outline
from encoders.types import MppSource

# Fewer say too little of a tissue: a region of 16 tiles of 224 px at 0.5 µm/px is 0.2 mm².
LEAST_TILES = 16
_ID_CHARS = 32
_UM2_PER_MM2 = 1e6
# 370,000 px a side in tiles of 64 px have 12,000 edges.
_MOST_STRIPS = 16_384


@dataclass(frozen=True)
class TilePlaces:
    """Corners int64 [N, 2], level-0 (x, y), in the file's order, of tiles of `side_px` level-0 pixels a side.

    The slide's µm/px and size in level-0 pixels are None where nobody has said them. `least` of them make a region.
    Of a model of levels they are its own regions, each of which shows far more than a tile.
    """

    coords: NDArray[np.int64]
    side_px: float
    mpp: float | None
    width: int | None
    height: int | None
    mpp_source: MppSource = "features"
    least: int = LEAST_TILES

    def area_mm2(self, chosen: NDArray[np.int64], mpp: float | None = None) -> float | None:
        """What the tiles of these indices cover, each place once however many lie on it; `mpp` where the file says
        none."""
        mpp = mpp if self.mpp is None else self.mpp
        area = None if mpp is None else covered_px2(self.coords[chosen], self.side_px)
        return None if mpp is None or area is None else area * mpp**2 / _UM2_PER_MM2

    def inside(self, outline: Outline) -> NDArray[np.int64]:
        """Indices of the tiles whose centre lies inside, ascending; a centre on the outline belongs to one side."""
        centres = self.coords + self.side_px / 2
        order = np.argsort(centres[:, 1], kind="stable")
        x, y = centres[order].T
        is_inside = np.zeros(len(order), dtype=bool)
        ends = np.roll(outline.corners, -1, axis=0)
        for (x1, y1), (x2, y2) in zip(outline.corners.tolist(), ends.tolist(), strict=True):
            first, last = np.searchsorted(y, (min(y1, y2), max(y1, y2)))
            if first < last:  # an edge is looked at by the rows of tiles that it crosses
                crossed_at = x1 + (y[first:last] - y1) * ((x2 - x1) / (y2 - y1))
                is_inside[first:last] ^= x[first:last] < crossed_at
        return np.sort(order[is_inside])

    def require_inside(self, outline: Outline) -> NDArray[np.int64]:
        """The same, of a region that can be asked about.

        Raises:
            UnusableRegion: the outline lies beside the slide.
            RegionTooSmall: too few tiles; the text says how many more are needed.
        """
        outline.require_touches(self.width, self.height)
        chosen = self.inside(outline)
        if len(self.coords) < self.least:
            raise RegionTooSmall(
                f"The whole slide has {len(self.coords)} tiles of tissue, fewer than the {self.least} of the smallest "
                "region; ask about the slide."
            )
        missing = self.least - len(chosen)
        if missing > 0:
            size = "" if self.mpp is None else f" ({missing * (self.side_px * self.mpp) ** 2 / _UM2_PER_MM2:.2f} mm²)"
            raise RegionTooSmall(
                f"The region holds {len(chosen)} of the {self.least} tiles of tissue that an answer needs; enlarge it "
                f"by {missing} more{size}."
            )
        return chosen


def covered_px2(corners: NDArray[np.int64], side_px: float) -> float | None:
    """The area in pixels of the union of squares of one side at corners [n, 2], each place once.

    Strip by strip between the squares' edges. Regions of several outlines overlap, and tiles may where others cut the
    slide. None of more strips than the largest slide's tiles have: of places without any order.
    """
    axis = int(np.argmin([len(np.unique(values)) for values in corners.T]))
    ordered = corners[np.argsort(corners[:, axis], kind="stable")]
    along, across = ordered[:, axis], ordered[:, 1 - axis]
    edges = np.unique(np.concatenate([along, along + side_px]))
    if len(edges) > _MOST_STRIPS:
        return None
    # Sides may be fractions of a pixel, and what was added is not quite what is taken away.
    first = np.searchsorted(along, edges[:-1] - side_px + 1e-6, side="right")
    last = np.searchsorted(along, edges[:-1], side="right")
    area = 0.0
    for width, start, end in zip(np.diff(edges).tolist(), first.tolist(), last.tolist(), strict=True):
        if start < end:
            gaps = np.diff(np.sort(across[start:end]))
            area += width * (float(np.minimum(gaps, side_px).sum()) + side_px)
    return area


def region_id(slide_id: str, encoder_id: str, coords: NDArray[np.int64]) -> str:
    """The name of a region with tiles at these corners: however it was drawn, the same tiles give the same one."""
    ordered = coords[np.lexsort((coords[:, 0], coords[:, 1]))]
    named = hashlib.sha256(f"region\0{slide_id}\0{encoder_id}\0".encode())
    named.update(ordered.astype("<i8").tobytes())
    return f"reg_{named.hexdigest()[:_ID_CHARS]}"
