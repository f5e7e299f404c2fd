"""What regions gave, as it is kept: plain arrays, cells at their place on the slide, no maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.hierarchical.encode import PICTURE_PX, RegionFeatures
from encoders.hierarchical.find_cells import Cells
from encoders.hierarchical.levels import FoundCells, Levels


@dataclass(frozen=True)
class RegionLevels:
    """n regions that follow each other; k chosen pictures each, N cells in all of them.

    `cells.patch` counts from the first of these regions: region · k + rank. Coordinates are level-0 pixels.
    """

    region: NDArray[np.float32]
    """[n, Dr]."""
    patch_index: NDArray[np.uint8]
    """[n, k]."""
    patch: NDArray[np.float32]
    """[n, k, Dp]."""
    cell: NDArray[np.float32]
    """[n, k, Dc]."""
    anchor: NDArray[np.float32]
    """[Dp]: the slide's."""
    cells: FoundCells


def levels_of_region(features: RegionFeatures, corner: NDArray[np.integer], grid: int) -> RegionLevels:
    """One region of `grid` pictures along a side, whose corner is level-0 (x, y)."""
    index = features.patch_index.numpy().astype(np.uint8)
    return RegionLevels(
        region=features.region.numpy()[None],
        patch_index=index[None],
        patch=features.patch.numpy()[None],
        cell=features.cell.numpy()[None],
        anchor=features.anchor.numpy(),
        cells=_found(features.cells, index, corner, grid),
    )


def join_regions(parts: Sequence[RegionLevels]) -> RegionLevels:
    """Regions that follow each other as one; at least one."""
    k = parts[0].patch_index.shape[1]
    firsts = np.cumsum([0, *(len(part.region) for part in parts)])[:-1] * k
    points = np.cumsum([0, *(len(part.cells.outline) for part in parts)])[:-1]
    starts = [part.cells.outline_start[:-1] + first for part, first in zip(parts, points, strict=True)]
    patches = [part.cells.patch + first for part, first in zip(parts, firsts, strict=True)]
    outline = np.concatenate([part.cells.outline for part in parts])
    return RegionLevels(
        region=np.concatenate([part.region for part in parts]),
        patch_index=np.concatenate([part.patch_index for part in parts]),
        patch=np.concatenate([part.patch for part in parts]),
        cell=np.concatenate([part.cell for part in parts]),
        anchor=parts[0].anchor,
        cells=FoundCells(
            patch=np.concatenate(patches).astype(np.int32),
            centroid=np.concatenate([part.cells.centroid for part in parts]),
            kind=np.concatenate([part.cells.kind for part in parts]),
            outline_start=np.concatenate([*starts, [len(outline)]]).astype(np.int64),
            outline=outline,
        ),
    )


def levels_of_slide(
    regions: RegionLevels,
    coords: NDArray[np.int64],
    size: tuple[int, int],
    grid: int,
    slide_id: str,
    encoder_id: str,
) -> Levels:
    """All regions of a slide of that (width, height), for its file of levels."""
    return Levels(
        slide_id=slide_id,
        encoder_id=encoder_id,
        region_px=grid * PICTURE_PX,
        patch_px=PICTURE_PX,
        level0_width=size[0],
        level0_height=size[1],
        region_coords=coords.astype(np.int32),
        region_features=regions.region,
        slide_features=regions.region.mean(axis=0, dtype=np.float32),
        patch_index=regions.patch_index,
        patch_features=regions.patch,
        cell_features=regions.cell,
        cells=regions.cells,
    )


def _found(by_picture: Sequence[Cells], index: NDArray[np.uint8], corner: NDArray[np.integer], grid: int) -> FoundCells:
    row, column = np.divmod(index.astype(np.int64), grid)
    corners = corner + np.stack([column, row], axis=1) * PICTURE_PX
    counts = [len(cells.numbers) for cells in by_picture]
    outlines = [outline + at for cells, at in zip(by_picture, corners, strict=True) for outline in cells.contours]
    starts = np.cumsum([0, *(len(outline) for outline in outlines)])
    centroids = [cells.centroids + at for cells, at in zip(by_picture, corners, strict=True)]
    return FoundCells(
        patch=np.repeat(np.arange(len(counts)), counts).astype(np.int32),
        centroid=np.concatenate(centroids).astype(np.float32).reshape(-1, 2),
        kind=np.concatenate([cells.kinds for cells in by_picture]).astype(np.uint8),
        outline_start=starts.astype(np.int64),
        outline=np.concatenate([np.empty((0, 2), np.int64), *outlines]).astype(np.int32),
    )
