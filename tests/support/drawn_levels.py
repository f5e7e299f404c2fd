"""Levels of a slide as a hierarchical stage might have made them: plausible places, numbers drawn from a seed."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.hierarchical.cell_kinds import CELL_KINDS
from encoders.hierarchical.levels import FoundCells, Levels

SLIDE_ID = "ab" * 32
ENCODER_ID = "cd" * 8


def drawn_levels(
    *,
    seed: int = 1,
    region_grid: tuple[int, int] = (2, 2),
    region_px: int = 1024,
    patch_px: int = 256,
    chosen: int = 5,
    cells_per_patch: int = 6,
    widths: tuple[int, int, int] = (6, 8, 4),
    slide_id: str = SLIDE_ID,
    encoder_id: str = ENCODER_ID,
) -> Levels:
    """`region_grid` columns and rows of regions, column by column; half a region of glass around them.

    The last patch of each region has no cells, others `cells_per_patch`: ellipses of all kinds in turn.
    `widths` are those of the features of regions, patches and cells.
    """
    random = np.random.default_rng(seed)
    columns, rows = region_grid
    margin = region_px // 2
    places = [(margin + x * region_px, margin + y * region_px) for x in range(columns) for y in range(rows)]
    count, grid = len(places), region_px // patch_px
    index = np.stack([random.permutation(grid * grid)[:chosen] for _ in places]).astype(np.uint8)
    region_features = _features(random, count, widths[0])
    levels = Levels(
        slide_id=slide_id,
        encoder_id=encoder_id,
        region_px=region_px,
        patch_px=patch_px,
        level0_width=2 * margin + columns * region_px,
        level0_height=2 * margin + rows * region_px,
        region_coords=np.array(places, np.int32),
        region_features=region_features,
        slide_features=region_features.mean(axis=0),
        patch_index=index,
        patch_features=_features(random, count, chosen, widths[1]),
        cell_features=_features(random, count, chosen, widths[2]),
        cells=None,
    )
    corners = levels.patch_coords().reshape(-1, 2)
    with_cells = [patch for patch in range(count * chosen) if patch % chosen < chosen - 1 or chosen == 1]
    return _with_cells(levels, random, corners, np.repeat(with_cells, cells_per_patch))


def _features(random: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return random.normal(size=shape).astype(np.float32)


def _with_cells(
    levels: Levels, random: np.random.Generator, corners: NDArray[np.int64], patches: NDArray[np.int64]
) -> Levels:
    outlines, centroids = [], []
    for patch in patches:
        half_axes = random.integers(3, max(4, min(14, levels.patch_px // 16)), size=2)
        room = int(half_axes.max()) + 1
        middle = random.integers(room, levels.patch_px - room, size=2)
        mask = np.zeros((levels.patch_px, levels.patch_px), np.uint8)
        cv2.ellipse(mask, middle.tolist(), half_axes.tolist(), int(random.integers(180)), 0, 360, 1, cv2.FILLED)
        outline = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0][0].reshape(-1, 2)
        outlines.append((outline + corners[patch]).astype(np.int32))
        centroids.append(middle + corners[patch])
    cells = FoundCells(
        patch=patches.astype(np.int32),
        centroid=np.array(centroids, np.float32).reshape(-1, 2),
        kind=(np.arange(len(patches)) % len(CELL_KINDS)).astype(np.uint8),
        outline_start=np.cumsum([0, *(len(outline) for outline in outlines)], dtype=np.int64),
        outline=np.concatenate(outlines) if outlines else np.zeros((0, 2), np.int32),
    )
    return replace(levels, cells=cells)
