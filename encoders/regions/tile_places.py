"""Where a slide's tiles lie, and which of them lie in a region; from the stored features, so no pixel is read.

A tile belongs to a region when its centre lies inside. Imports no torch: the API chooses tiles too, and names regions.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.errors import RegionsUnavailable, RegionTooSmall, StoredFileDamaged
from encoders.regions.outline import Outline
from encoders.types import MppSource

# Fewer say too little of a tissue: a region of 16 tiles of 224 px at 0.5 µm/px is 0.2 mm².
LEAST_TILES = 16
_ID_CHARS = 32
_UM2_PER_MM2 = 1e6
StoredFile = Path | BinaryIO


@dataclass(frozen=True)
class TilePlaces:
    """Corners int64 [N, 2], level-0 (x, y), in the file's order, of tiles of `side_px` level-0 pixels a side.

    The slide's µm/px and size in level-0 pixels are None where nobody has said them.
    """

    coords: NDArray[np.int64]
    side_px: float
    mpp: float | None
    width: int | None
    height: int | None
    mpp_source: MppSource = "features"

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
        if len(self.coords) < LEAST_TILES:
            raise RegionTooSmall(
                f"The whole slide has {len(self.coords)} tiles of tissue, fewer than the {LEAST_TILES} of the smallest "
                "region; ask about the slide."
            )
        missing = LEAST_TILES - len(chosen)
        if missing > 0:
            area = self.area_mm2(missing)
            size = "" if area is None else f" ({area:.2f} mm²)"
            raise RegionTooSmall(
                f"The region holds {len(chosen)} of the {LEAST_TILES} tiles of tissue that an answer needs; enlarge it "
                f"by {missing} more{size}."
            )
        return chosen


def region_id(slide_id: str, encoder_id: str, coords: NDArray[np.int64]) -> str:
    """The name of a region with tiles at these corners: however it was drawn, the same tiles give the same one."""
    ordered = coords[np.lexsort((coords[:, 0], coords[:, 1]))]
    named = hashlib.sha256(f"region\0{slide_id}\0{encoder_id}\0".encode())
    named.update(ordered.astype("<i8").tobytes())
    return f"reg_{named.hexdigest()[:_ID_CHARS]}"


def read_tile_places(stored: StoredFile) -> TilePlaces:
    """From a features file of ours.

    Raises:
        RegionsUnavailable: whoever made the features did not say how large a tile is.
        StoredFileDamaged: it cannot be read.
    """
    try:
        with h5py.File(stored, "r") as file:
            dataset = file["coords"]
            coords = np.asarray(dataset[()], dtype=np.int64)
            said = {name: _plain(value) for name, value in [*dataset.attrs.items(), *file.attrs.items()]}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged() from error
    side_px = said.get("tile_px_level0") or said.get("patch_size_level0")
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise _damaged()
    if side_px is None:
        raise RegionsUnavailable(
            "The features of this slide do not say how large a tile is, so nobody knows which lie in a region; send "
            "them with `patch_size_level0`, or ask about the whole slide."
        )
    source = said.get("mpp_source", "features")
    return TilePlaces(coords, float(side_px), said.get("mpp"), said.get("width"), said.get("height"), source)


def read_tile_features(stored: StoredFile, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features float32 [n, D] of these tiles, by ascending index; only the parts of the file that hold some are read.

    Raises:
        StoredFileDamaged: they cannot be read, or are not finite.
    """
    try:
        with h5py.File(stored, "r") as file:
            dataset = file["features"]
            features = np.empty((len(chosen), dataset.shape[1]), dtype=np.float32)
            step = dataset.chunks[0] if dataset.chunks else len(dataset)
            blocks, starts = np.unique(chosen // step, return_index=True)
            ends = np.append(starts[1:], len(chosen))
            for block, start, end in zip(blocks.tolist(), starts.tolist(), ends.tolist(), strict=True):
                rows = dataset[block * step : (block + 1) * step]
                features[start:end] = rows[chosen[start:end] - block * step]
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _damaged() from error
    if not np.isfinite(features).all():
        raise _damaged()
    return features


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _damaged() -> StoredFileDamaged:
    return StoredFileDamaged("The slide's stored features cannot be read; delete the slide and upload it again.")
