"""A file of levels seen part by part, within the bounds of `levels_checks`. Imports no torch: the API reads so."""

from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.hierarchical.cell_kinds import CELL_KINDS
from encoders.hierarchical.levels import FoundCells, KeptLevels, patch_coords
from encoders.hierarchical.levels_checks import (
    OUTLINE,
    check_cells,
    check_facts,
    check_places,
    open_datasets,
    read_facts,
    translate_damage,
)

_COUNTED_AT_ONCE: Final = 2**20


class LevelsPlaces:
    """A file of levels, of which only regions and chosen patches are read: what lies where, and what is kept of some.

    A context manager; used by one thread at a time. Raises StoredFileDamaged on entering when the file is cut, foreign,
    too large, or contradicts itself, and later when what it reads is damaged.
    """

    slide_id: str
    encoder_id: str
    region_px: int
    patch_px: int
    level0_width: int | None
    level0_height: int | None
    region_coords: NDArray[np.int32]
    """[R, 2]."""
    patch_coords: NDArray[np.int64]
    """[R, k, 2]."""

    def __init__(self, stored: Path | BinaryIO) -> None:
        self._stored = stored

    def __enter__(self) -> Self:
        """Opens, and reads all but cells and features."""
        with translate_damage():
            self._file = h5py.File(self._stored, "r", locking=False)
        try:
            with translate_damage():
                self._open()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self._file.close()

    def kept_of(self, regions: NDArray[np.int64]) -> KeptLevels:
        """Of these regions, by ascending index, what a slide stage makes rows of; only the parts of the file that hold
        some are read."""
        with translate_damage():
            return KeptLevels(
                region=_finite(rows_of(self._datasets["regions/features"], regions)),
                patch_index=rows_of(self._datasets["patches/index"], regions),
                patch=_finite(rows_of(self._datasets["patches/features"], regions)),
                cell=_finite(rows_of(self._datasets["cells/features"], regions)),
            )

    def _open(self) -> None:
        vars(self).update(read_facts(self._file))
        check_facts(self)
        self._datasets = open_datasets(self._file)
        self.region_coords = self._read("regions/coords")
        index = self._read("patches/index")
        check_places(self.region_coords, index, self)
        self.patch_coords = patch_coords(self.region_coords, index, self.region_px, self.patch_px)

    def _read(self, name: str, some: slice = slice(None)) -> NDArray[Any]:
        return np.asarray(self._datasets[name][some])


class LevelsReader(LevelsPlaces):
    """The same with the cells of some patches; ends and raises as it does."""

    cell_counts: NDArray[np.int64] | None
    """[R, k, kinds]: cells of each patch by kind; None where nobody knows which cells there were."""

    def cells_of(self, first: int, last: int) -> FoundCells:
        """Cells of the patches `first … last - 1` (region · k + rank); ValueError where nobody knows the cells."""
        if self._cell_start is None:
            raise ValueError("nobody knows which cells there were")
        with translate_damage():
            some = slice(int(self._cell_start[first]), int(self._cell_start[last]))
            start = self._read("cells/found/outline_start", slice(some.start, some.stop + 1))
            points = slice(int(start[0]), int(start[-1]))
            cell_count, point_count = (self._datasets[name].shape[0] for name in ("cells/found/kind", OUTLINE))
            is_whole = some.start > 0 or points.start == 0, some.stop < cell_count or points.stop == point_count
            if not (all(is_whole) and 0 <= points.start <= points.stop <= point_count):
                raise ValueError("outlines lie outside the file, or leave a part of it out")
            cells = FoundCells(
                patch=self._read("cells/found/patch", some),
                centroid=self._read("cells/found/centroid", some),
                kind=self._read("cells/found/kind", some),
                outline_start=start - start[0],
                outline=self._read(OUTLINE, points),
            )
            check_cells(cells, self.patch_coords.reshape(-1, 2), self.patch_px)
        return cells

    def _open(self) -> None:
        super()._open()
        self.cell_counts, self._cell_start = None, None
        if "cells/found/patch" in self._datasets:
            patches = self.patch_coords.shape[:2]
            counts = self._count_cells(patches[0] * patches[1])
            self.cell_counts = counts.reshape(*patches, len(CELL_KINDS))
            self._cell_start = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])

    def _count_cells(self, patches: int) -> NDArray[np.int64]:
        """[P, kinds], in blocks: there may be millions of cells."""
        counts = np.zeros(patches * len(CELL_KINDS), np.int64)
        before = 0
        for first in range(0, self._datasets["cells/found/patch"].shape[0], _COUNTED_AT_ONCE):
            some = slice(first, first + _COUNTED_AT_ONCE)
            patch, kind = self._read("cells/found/patch", some), self._read("cells/found/kind", some)
            if patch[0] < before or patch[-1] >= patches or (patch[1:] < patch[:-1]).any():
                raise ValueError("cells are not in the order of patches")
            if kind.max() >= len(CELL_KINDS):
                raise ValueError("a kind of cell is unknown")
            before = int(patch[-1])
            counts += np.bincount(patch.astype(np.int64) * len(CELL_KINDS) + kind, minlength=len(counts))
        return counts.reshape(patches, len(CELL_KINDS))


def rows_of(dataset: h5py.Dataset, chosen: NDArray[np.int64]) -> NDArray[Any]:
    """Rows [n, …] by ascending index, chunk by chunk."""
    rows = np.empty((len(chosen), *dataset.shape[1:]), dtype=dataset.dtype)
    step = dataset.chunks[0] if dataset.chunks else max(1, len(dataset))
    blocks, starts = np.unique(chosen // step, return_index=True)
    ends = np.append(starts[1:], len(chosen))
    for block, start, end in zip(blocks.tolist(), starts.tolist(), ends.tolist(), strict=True):
        read = dataset[block * step : (block + 1) * step]
        rows[start:end] = read[chosen[start:end] - block * step]
    return rows


def _finite(features: NDArray[Any]) -> NDArray[np.float32]:
    if not np.isfinite(features).all():
        raise ValueError("not finite")
    return features.astype(np.float32, copy=False)
