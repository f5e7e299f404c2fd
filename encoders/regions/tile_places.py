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

    def area_mm2(self, tiles: int) -> float | None:
        """What so many tiles cover."""
        return None if self.mpp is None else tiles * (self.side_px * self.mpp) ** 2 / _UM2_PER_MM2

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
            area = self.area_mm2(missing)
            size = "" if area is None else f" ({area:.2f} mm²)"
            raise RegionTooSmall(
                f"The region holds {len(chosen)} of the {self.least} tiles of tissue that an answer needs; enlarge it "
                f"by {missing} more{size}."
            )
        return chosen


def region_id(slide_id: str, encoder_id: str, coords: NDArray[np.int64]) -> str:
    """The name of a region with tiles at these corners: however it was drawn, the same tiles give the same one."""
    ordered = coords[np.lexsort((coords[:, 0], coords[:, 1]))]
    named = hashlib.sha256(f"region\0{slide_id}\0{encoder_id}\0".encode())
    named.update(ordered.astype("<i8").tobytes())
    return f"reg_{named.hexdigest()[:_ID_CHARS]}"
