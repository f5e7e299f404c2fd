"""The file of levels: HDF5 with what a hierarchical slide stage made of a slide, from cells to the whole.

    regions/coords         int32   [R, 2], corners, level-0 (x, y), in the model's order
    regions/features       float32 [R, Dr]
    slide/features         float32 [Dr]
    patches/index          uint8   [R, k], row · G + column in its region, in rank order; G = region_px / patch_px
    patches/features       float32 [R, k, Dp]
    cells/features         float32 [R, k, Dc], of each patch's cells together; zeros where there are none
    cells/found/patch      int32   [N], region · k + rank, ascending
    cells/found/centroid   float32 [N, 2], level-0 (x, y)
    cells/found/kind       uint8   [N], into CELL_KINDS
    cells/found/outline_start int64 [N + 1]: the corners of cell n are outline[start[n]:start[n + 1]]
    cells/found/outline    int32   [M, 2], level-0 (x, y), pixels of the cell

Root attributes: format, format_version, slide_id, encoder_id, region_px, patch_px (level-0 pixels), and, where they
are known, level0_width and level0_height. Without the group `cells/found` nobody knows which cells there were:
features that were given to us come without. An id of zeros says that nobody knows which slide, or which encoder, it
was. Coordinates are of pixels; the slide's first is (0, 0).

Imports no torch: the API reads these files too.
"""

from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.hierarchical.levels import FoundCells, Levels
from encoders.hierarchical.levels_checks import (
    DTYPES,
    FORMAT,
    FORMAT_VERSION,
    check_facts,
    check_shapes,
    check_values,
    open_datasets,
    read_facts,
    translate_damage,
)
from encoders.precomputed.given_features import GivenLevels

_CHUNK_BYTES: Final = 2**18


def write_levels(path: Path, levels: Levels) -> None:
    """Writes over what is there; give it a temporary name. Raises ValueError for what `read_levels` would refuse."""
    check_facts(levels)
    arrays = _arrays(levels)
    for name, values in arrays.items():
        if values.dtype != DTYPES[name]:
            raise ValueError(f"{name} is {values.dtype}, not {DTYPES[name]}")
    check_shapes({name: values.shape for name, values in arrays.items()})
    check_values(levels)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION})
        file.attrs.update({name: getattr(levels, name) for name in ("slide_id", "encoder_id", "region_px", "patch_px")})
        if levels.level0_width is not None:
            file.attrs.update({"level0_width": levels.level0_width, "level0_height": levels.level0_height})
        for name, values in arrays.items():
            _write(file, name, values)


def write_given_levels(path: Path, given: GivenLevels, slide_id: str, encoder_id: str) -> None:
    """The same of levels that were given to us: which cells there were, nobody knows."""
    shape = given.shape
    levels = Levels(
        slide_id=slide_id,
        encoder_id=encoder_id,
        region_px=shape.region_px,
        patch_px=shape.patch_px,
        level0_width=shape.level0_width,
        level0_height=shape.level0_height,
        region_coords=given.coords.astype(np.int32),
        region_features=given.region,
        slide_features=given.region.mean(axis=0, dtype=np.float32),
        patch_index=given.patch_index,
        patch_features=given.patch,
        cell_features=given.cell,
        cells=None,
    )
    write_levels(path, levels)


def read_levels(path: Path) -> Levels:
    """All of a file; raises StoredFileDamaged when it is cut, foreign, too large, or contradicts itself."""
    with translate_damage(), h5py.File(path, "r", locking=False) as file:
        facts = read_facts(file)
        arrays = {name: np.asarray(dataset[()]) for name, dataset in open_datasets(file).items()}
        levels = Levels(
            **facts,
            region_coords=arrays["regions/coords"],
            region_features=arrays["regions/features"],
            slide_features=arrays["slide/features"],
            patch_index=arrays["patches/index"],
            patch_features=arrays["patches/features"],
            cell_features=arrays["cells/features"],
            cells=FoundCells(**{field: arrays[f"cells/found/{field}"] for field in FoundCells.__annotations__})
            if "cells/found/patch" in arrays
            else None,
        )
        check_facts(levels)
        check_values(levels)
    return levels


def _arrays(levels: Levels) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "regions/coords": levels.region_coords,
        "regions/features": levels.region_features,
        "slide/features": levels.slide_features,
        "patches/index": levels.patch_index,
        "patches/features": levels.patch_features,
        "cells/features": levels.cell_features,
    }
    if levels.cells is not None:
        arrays |= {f"cells/found/{field}": getattr(levels.cells, field) for field in FoundCells.__annotations__}
    return arrays


def _write(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    """In chunks, each with the checksum that HDF5 itself verifies. Features do not shrink; the rest is mostly order."""
    if not values.size:
        file.create_dataset(name, data=values)
        return
    rows = max(1, min(len(values), _CHUNK_BYTES // max(1, values[:1].nbytes)))
    packed: dict[str, Any] = {} if values.dtype.kind == "f" else {"compression": "gzip", "compression_opts": 1}
    file.create_dataset(
        name, data=values, chunks=(rows, *values.shape[1:]), shuffle=bool(packed), fletcher32=True, **packed
    )
