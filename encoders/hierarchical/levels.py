"""All levels of a slide, as plain arrays: what the file of levels holds (`encoders.hierarchical.levels_file`).

Imports no torch: the API reads these too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FoundCells:
    """N cells, patch by patch; shapes as in the file."""

    patch: NDArray[np.int32]
    centroid: NDArray[np.float32]
    kind: NDArray[np.uint8]
    outline_start: NDArray[np.int64]
    outline: NDArray[np.int32]


@dataclass(frozen=True)
class Levels:
    """All levels of a slide; shapes as in the file. `cells` is None where nobody knows which cells there were."""

    slide_id: str
    encoder_id: str
    region_px: int
    patch_px: int
    level0_width: int | None
    level0_height: int | None
    region_coords: NDArray[np.int32]
    region_features: NDArray[np.float32]
    slide_features: NDArray[np.float32]
    patch_index: NDArray[np.uint8]
    patch_features: NDArray[np.float32]
    cell_features: NDArray[np.float32]
    cells: FoundCells | None

    def patch_coords(self) -> NDArray[np.int64]:
        """Corners of the chosen patches, [R, k, 2], level-0 (x, y)."""
        return patch_coords(self.region_coords, self.patch_index, self.region_px, self.patch_px)


@dataclass(frozen=True)
class KeptLevels:
    """What a hierarchical stage makes rows of, of n of a slide's regions: features float32 [n, Dr], of their k chosen
    patches [n, k, Dp] and of the cells in these [n, k, Dc]; `patch_index` uint8 [n, k]."""

    region: NDArray[np.float32]
    patch_index: NDArray[np.uint8]
    patch: NDArray[np.float32]
    cell: NDArray[np.float32]


def patch_coords(
    region_coords: NDArray[np.int32], patch_index: NDArray[np.uint8], region_px: int, patch_px: int
) -> NDArray[np.int64]:
    """Corners of patches, [R, k, 2], level-0 (x, y)."""
    row, column = np.divmod(patch_index.astype(np.int64), region_px // patch_px)
    corners: NDArray[np.int64] = region_coords[:, None].astype(np.int64) + np.stack([column, row], axis=-1) * patch_px
    return corners
