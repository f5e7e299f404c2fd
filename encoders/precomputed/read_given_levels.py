"""A file of levels as given features: a row for each region. Runs in the child only.

What it says of itself, outlines of cells included, is checked as in a file of ours (encoders.hierarchical.levels_file).
"""

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.errors import StoredFileDamaged, UnusableFeatures
from encoders.hierarchical.levels import Levels
from encoders.hierarchical.levels_checks import FORMAT
from encoders.hierarchical.levels_file import read_levels
from encoders.precomputed.given_features import LevelsShape


class LevelsFeatures:
    """An open file."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self.levels = LevelsShape(
            kept=levels.patch_index.shape[1],
            region_dim=levels.region_features.shape[1],
            patch_dim=levels.patch_features.shape[2],
            cell_dim=levels.cell_features.shape[2],
            region_px=levels.region_px,
            patch_px=levels.patch_px,
            level0_width=levels.level0_width,
            level0_height=levels.level0_height,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Regions and numbers of each."""
        return len(self._levels.region_coords), self.levels.columns

    def coords(self) -> NDArray[np.generic]:
        """Corners of regions."""
        return self._levels.region_coords

    def statements(self) -> dict[str, object]:
        """None: they are in `levels`."""
        return {}

    def rows(self, first: int, count: int) -> NDArray[np.float32]:
        """Some regions, see LevelsShape.columns."""
        levels, some = self._levels, slice(first, first + count)
        index = levels.patch_index[some].astype(np.float32)
        flat = [it[some].reshape(len(index), -1) for it in (levels.patch_features, levels.cell_features)]
        return np.concatenate([levels.region_features[some], index, *flat], axis=1)


def open_levels(path: Path) -> LevelsFeatures | None:
    """None for HDF5 that is no file of levels; raises UnusableFeatures for a damaged one."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            if "format" not in file.attrs or file.attrs.get_id("format").get_storage_size() > len(FORMAT) + 16:
                return None
            if file.attrs["format"] not in (FORMAT, FORMAT.encode()):
                return None
        return LevelsFeatures(read_levels(path))
    except StoredFileDamaged as error:
        raise UnusableFeatures(
            "The file of levels is cut, contradicts itself or is of another version; make it again, or send the slide."
        ) from error
    except (OSError, RuntimeError, ValueError, TypeError):
        return None  # Hdf5Features says what is wrong
