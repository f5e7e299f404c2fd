"""What is stored of a slide's tiles, or of a hierarchical model's regions: their places, and the features of some.

No pixel is read. Imports no torch: the API reads places too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.errors import RegionsUnavailable, StoredFileDamaged
from encoders.hierarchical.levels import KeptLevels
from encoders.hierarchical.levels_checks import FORMAT
from encoders.hierarchical.levels_reader import LevelsPlaces, rows_of
from encoders.regions.tile_places import LEAST_TILES, TilePlaces

StoredFile = Path | BinaryIO
# One region of levels, a square millimetre at 0.25 µm/px, has many pictures in it.
_LEAST_REGIONS = 1


def read_tile_places(stored: StoredFile) -> TilePlaces:
    """From a features file of ours, of tiles or of levels.

    Raises:
        RegionsUnavailable: whoever made the features did not say how large a tile is.
        StoredFileDamaged: it cannot be read.
    """
    with _translated():
        with h5py.File(stored, "r") as file:
            has_levels = file.attrs.get("format") == FORMAT
            if not has_levels:
                dataset = file["coords"]
                coords = np.asarray(dataset[()], dtype=np.int64)
                said = {name: _plain(value) for name, value in [*dataset.attrs.items(), *file.attrs.items()]}
                if coords.ndim != 2 or coords.shape[1] != 2:
                    raise ValueError("no places")
        if has_levels:
            return _regions_of(stored)
    side_px = said.get("tile_px_level0") or said.get("patch_size_level0")
    if side_px is None:
        raise RegionsUnavailable(
            "The features of this slide do not say how large a tile is, so nobody knows which lie in a region; send "
            "them with `patch_size_level0`, or ask about the whole slide."
        )
    size = said.get("width"), said.get("height")
    source = said.get("mpp_source", "features")
    return TilePlaces(coords, float(side_px), said.get("mpp"), *size, source, LEAST_TILES)


def read_tile_features(stored: StoredFile, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features float32 [n, D] of these tiles, by ascending index; only the parts of the file that hold some are read.

    Raises:
        StoredFileDamaged: they cannot be read, or are not finite.
    """
    with _translated(), h5py.File(stored, "r") as file:
        features = rows_of(file["features"], chosen)
        if not np.isfinite(features).all():
            raise ValueError("not finite")
        return features.astype(np.float32, copy=False)


def read_kept_levels(stored: StoredFile, chosen: NDArray[np.int64]) -> KeptLevels:
    """The same of a file of levels."""
    with _translated(), LevelsPlaces(stored) as file:
        return file.kept_of(chosen)


def _regions_of(stored: StoredFile) -> TilePlaces:
    """Of a file of levels, which says no µm/px: who knows more of the slide says it."""
    with LevelsPlaces(stored) as file:
        size = file.level0_width, file.level0_height
        coords = file.region_coords.astype(np.int64)
        return TilePlaces(coords, float(file.region_px), None, *size, "features", _LEAST_REGIONS)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise StoredFileDamaged(
            "The slide's stored features cannot be read; delete the slide and upload it again."
        ) from error
