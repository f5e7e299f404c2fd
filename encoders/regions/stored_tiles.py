"""What is stored of a slide's tiles, or of a hierarchical model's regions: their places, and the features of some.

No pixel is read. Imports no torch: the API reads places too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.errors import RegionsUnavailable, StoredFileDamaged
from encoders.hierarchical.levels_file import FORMAT
from encoders.regions.tile_places import LEAST_TILES, TilePlaces

StoredFile = Path | BinaryIO
# One region of levels, a square millimetre at 0.25 µm/px, has many pictures in it.
_LEAST_REGIONS = 1


@dataclass(frozen=True)
class KeptLevels:
    """What a hierarchical stage makes rows of, of n of a slide's regions: features float32 [n, Dr], of their k chosen
    patches [n, k, Dp] and of the cells in these [n, k, Dc]; `patch_index` uint8 [n, k]."""

    region: NDArray[np.float32]
    patch_index: NDArray[np.uint8]
    patch: NDArray[np.float32]
    cell: NDArray[np.float32]


def read_tile_places(stored: StoredFile) -> TilePlaces:
    """From a features file of ours, of tiles or of levels.

    Raises:
        RegionsUnavailable: whoever made the features did not say how large a tile is.
        StoredFileDamaged: it cannot be read.
    """
    with _translated(), h5py.File(stored, "r") as file:
        has_levels = file.attrs.get("format") == FORMAT
        dataset = file["regions/coords" if has_levels else "coords"]
        coords = np.asarray(dataset[()], dtype=np.int64)
        said = {name: _plain(value) for name, value in [*dataset.attrs.items(), *file.attrs.items()]}
        if coords.ndim != 2 or coords.shape[1] != 2:
            raise ValueError("no places")
    if has_levels:
        size = said.get("level0_width"), said.get("level0_height")
        return TilePlaces(coords, float(said["region_px"]), None, *size, "property", _LEAST_REGIONS)
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
        return _finite(_rows(file["features"], chosen))


def read_kept_levels(stored: StoredFile, chosen: NDArray[np.int64]) -> KeptLevels:
    """The same of a file of levels."""
    with _translated(), h5py.File(stored, "r") as file:
        return KeptLevels(
            region=_finite(_rows(file["regions/features"], chosen)),
            patch_index=_rows(file["patches/index"], chosen),
            patch=_finite(_rows(file["patches/features"], chosen)),
            cell=_finite(_rows(file["cells/features"], chosen)),
        )


def _rows(dataset: h5py.Dataset, chosen: NDArray[np.int64]) -> NDArray[Any]:
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
