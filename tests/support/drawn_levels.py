"""Levels of a slide as a hierarchical stage might have made them: plausible places, numbers drawn from a seed."""

import numpy as np
from numpy.typing import NDArray

from encoders.hierarchical.levels_file import CELL_KINDS, FoundCells, Levels

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

    The last patch of each region has no cells, others `cells_per_patch`: outlines of drawn size, of all kinds in turn.
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
        radius = random.uniform(3, min(12, levels.patch_px / 8), size=2)
        middle = corners[patch] + random.uniform(radius.max() + 1, levels.patch_px - radius.max() - 2, size=2)
        turn = np.arange(12) * (np.pi / 6)
        outline = np.rint(middle + np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius)
        outlines.append(outline.astype(np.int32))
        centroids.append(middle)
    cells = FoundCells(
        patch=patches.astype(np.int32),
        centroid=np.array(centroids, np.float32).reshape(-1, 2),
        kind=(np.arange(len(patches)) % len(CELL_KINDS)).astype(np.uint8),
        outline_start=(np.arange(len(patches) + 1) * 12).astype(np.int64),
        outline=np.concatenate(outlines) if outlines else np.zeros((0, 2), np.int32),
    )
    return Levels(**{**vars(levels), "cells": cells})
