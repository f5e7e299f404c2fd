"""The files that MLLM-HWSI's public code keeps of a slide: read into levels, and written from them.

    patches_filtered/<id>.pt              selected_features float32 [R, k, Dp], selected_indices int64 [R, k]
    region_4k/<id>.pt                     float32 [R, Dr]
    wsi/<id>.pt                           float32 [Dr], the mean of the regions
    coords_region4096_valid/<id>.h5       coords int64 [R, 2], level-0 (x, y)
    cells/<id>/encoded_cell_features.pt   encoded_cell_features float32 [R, k, Dc], selected_patch_cell_level_indices
                                          int64 [R, k], region_coords_level0 int64 [R, 2], region_has_detail_dump
                                          bool [R], feature_dim

They say neither how large the slide is nor which cells there were. The id, by custom the slide's file name, may be a
patient's: errors name a file by its folder. Pickles are read by torch's `weights_only`, which runs nothing that a file
names.
"""

import io
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.errors import UnusableFeatures
from encoders.hierarchical.encode import PICTURE_PX
from encoders.hierarchical.levels import Levels
from encoders.hierarchical.levels_checks import MAX_BYTES, MAX_REGIONS, UNKNOWN_ENCODER, UNKNOWN_SLIDE

PUBLISHED_REGION_PX: Final = 4096

_PATCHES, _REGIONS, _SLIDE = "patches_filtered", "region_4k", "wsi"
_COORDS, _CELLS, _METADATA = "coords_region4096_valid", "cells", "metadata"
_OF_ONE_RUN: Final = "Give the files of one run, or make them again together."
_AGAIN: Final = "Copy the file again, or make it again with the public code."
# Adding up some hundred regions in another order changes less.
_MEAN_TOLERATED: Final = 1e-5
# Exactly as float32; float64 would be rounded.
_FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16)
_INTEGERS: Final = (torch.int64, torch.int32, torch.int16, torch.uint8)
# What torch.load raises for a file that is cut or contradicts itself.
_DAMAGE: Final = (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class PublishedSlide:
    """What the files do not say of their slide; all lengths in level-0 pixels."""

    width: int
    height: int
    slide_id: str = UNKNOWN_SLIDE
    region_px: int = PUBLISHED_REGION_PX


def published_paths(folder: Path, stem: str) -> dict[str, Path]:
    """The files of one slide, by the folder that the public code calls each by."""
    return {
        _PATCHES: folder / _PATCHES / f"{stem}.pt",
        _REGIONS: folder / _REGIONS / f"{stem}.pt",
        _SLIDE: folder / _SLIDE / f"{stem}.pt",
        _COORDS: folder / _COORDS / f"{stem}.h5",
        _CELLS: folder / _CELLS / stem / "encoded_cell_features.pt",
    }


def read_published(folder: Path, stem: str, slide: PublishedSlide) -> Levels:
    """The levels of one slide, in the files' order of regions, by an unknown encoder and with unknown cells.

    Raises:
        UnusableFeatures: a file is missing or damaged, or they contradict each other or the slide.
    """
    paths = published_paths(folder, stem)
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        raise UnusableFeatures(
            f"There is no file of this id in {', '.join(missing)}. Give the folder that holds {', '.join(paths)}, and "
            "the id that its files are named by."
        )
    _check_metadata(folder / _METADATA / f"{stem}.json", slide)
    region = _features(_load(paths[_REGIONS], _REGIONS), _REGIONS, (None, None))
    regions = len(region)
    if not 1 <= regions <= MAX_REGIONS:
        raise UnusableFeatures(
            f"{_REGIONS} holds {regions} regions, and 1 to {MAX_REGIONS} can be answered from; send the slide itself."
        )
    chosen = _table(paths[_PATCHES], _PATCHES, "selected_features", "selected_indices")
    patch = _features(chosen["selected_features"], f"selected_features of {_PATCHES}", (regions, None, None))
    k = patch.shape[1]
    index = _indices(chosen["selected_indices"], (regions, k), slide)
    coords = _read_coords(paths[_COORDS])
    _check_coords(coords, regions, slide)
    return Levels(
        slide_id=slide.slide_id,
        encoder_id=UNKNOWN_ENCODER,
        region_px=slide.region_px,
        patch_px=PICTURE_PX,
        level0_width=slide.width,
        level0_height=slide.height,
        region_coords=coords.astype(np.int32),
        region_features=region,
        slide_features=_slide_features(paths[_SLIDE], region),
        patch_index=index.astype(np.uint8),
        patch_features=patch,
        cell_features=_cell_features(paths[_CELLS], index, coords),
        cells=None,
    )


def write_published(levels: Levels, folder: Path, stem: str) -> None:
    """Writes all files of one slide, or none, and over what is there. Raises OSError where they cannot be written."""
    paths = published_paths(folder, stem)
    index, coords = _saved(levels.patch_index.astype(np.int64)), levels.region_coords.astype(np.int64)
    contents: dict[str, object] = {
        _PATCHES: {"selected_features": _saved(levels.patch_features), "selected_indices": index},
        _REGIONS: _saved(levels.region_features),
        _SLIDE: _saved(levels.slide_features),
        _CELLS: {
            "encoded_cell_features": _saved(levels.cell_features),
            "selected_patch_cell_level_indices": index,
            "region_coords_level0": _saved(coords),
            "region_has_detail_dump": torch.zeros(len(coords), dtype=torch.bool),
            "feature_dim": levels.cell_features.shape[2],
        },
    }
    written: dict[str, Path] = {}
    try:
        for name, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = written[name] = path.with_name(f".{path.name}.{os.getpid()}")
            if name == _COORDS:
                with h5py.File(temporary, "w") as file:
                    file.create_dataset("coords", data=coords, compression="gzip")
            else:
                saved = io.BytesIO()  # given a path, torch writes its name into the file
                torch.save(contents[name], saved)
                temporary.write_bytes(saved.getbuffer())
        for name, temporary in written.items():
            temporary.replace(paths[name])
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def _saved(values: NDArray[Any]) -> Tensor:
    return torch.tensor(values)


def _load(path: Path, name: str) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise UnusableFeatures(f"{name} is larger than the features of any slide. {_AGAIN}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnusableFeatures(f"{name} holds more than tensors, which is not read. {_AGAIN}") from error
    except _DAMAGE as error:
        raise UnusableFeatures(f"{name} is cut or damaged. {_AGAIN}") from error


def _table(path: Path, name: str, *keys: str) -> Mapping[str, Any]:
    loaded = _load(path, name)
    missing = [key for key in keys if not isinstance(loaded, dict) or key not in loaded]
    if missing:
        raise UnusableFeatures(f"{name} has no {', '.join(missing)}. {_AGAIN}")
    found: Mapping[str, Any] = loaded
    return found


def _features(value: Any, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float32]:
    """Finite float32 of that shape, None where it is free but not empty."""
    tensor = _tensor(value, name, shape, _FLOATS, "float32")
    features: NDArray[np.float32] = tensor.to(torch.float32).contiguous().numpy()
    if not np.isfinite(features).all():
        raise UnusableFeatures(f"{name} holds values that are not finite. {_AGAIN}")
    return features


def _whole_numbers(value: Any, name: str, shape: tuple[int | None, ...]) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = _tensor(value, name, shape, _INTEGERS, "int64").to(torch.int64).contiguous().numpy()
    return numbers


def _tensor(
    value: Any, name: str, shape: tuple[int | None, ...], dtypes: tuple[torch.dtype, ...], dtype: str
) -> Tensor:
    """A dense tensor in memory: no subclass, not sparse, not on `meta`."""
    if type(value) is not Tensor or value.layout != torch.strided or value.device.type != "cpu":
        raise UnusableFeatures(f"{name} is no plain tensor. {_AGAIN}")
    if value.dtype not in dtypes:
        raise UnusableFeatures(f"{name} is {str(value.dtype).removeprefix('torch.')}; save it as {dtype}.")
    found = tuple(value.shape)
    fits = len(found) == len(shape) and all(
        have == want or (want is None and (have or position == 0))
        for position, (have, want) in enumerate(zip(found, shape, strict=True))
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise UnusableFeatures(f"{name} has the shape {list(found)}, not [{wanted}] as the others want. {_OF_ONE_RUN}")
    if value.numel() * 8 > MAX_BYTES:  # a small file can claim a large tensor
        raise UnusableFeatures(f"{name} is larger than the features of any slide. {_AGAIN}")
    return value.detach()


def _indices(value: Any, shape: tuple[int, int], slide: PublishedSlide) -> NDArray[np.int64]:
    index = _whole_numbers(value, f"selected_indices of {_PATCHES}", shape)
    places = (slide.region_px // PICTURE_PX) ** 2
    if index.min() < 0 or index.max() >= places:
        raise UnusableFeatures(
            f"selected_indices of {_PATCHES} reach from {index.min()} to {index.max()}; a region of {slide.region_px} "
            f"px has patches 0 to {places - 1}. Give the side of a region that the files were made with, or make them "
            "again."
        )
    ordered = np.sort(index, axis=1)
    twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(twice):
        raise UnusableFeatures(
            f"selected_indices of {_PATCHES} name a patch twice in {len(twice)} regions, the first is {twice[0]}. "
            f"{_AGAIN}"
        )
    return index


def _read_coords(path: Path) -> NDArray[np.int64]:
    """[R, 2], of any number of regions that a slide may have."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = file.get("coords")
            is_table = isinstance(found, h5py.Dataset) and len(found.shape or ()) == 2 and found.dtype.kind in "iu"
            if is_table and found.shape[1] == 2 and found.shape[0] <= MAX_REGIONS:
                coords: NDArray[np.int64] = np.asarray(found[()]).astype(np.int64)
                return coords
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UnusableFeatures(f"{_COORDS} is cut or damaged. {_AGAIN}") from error
    raise UnusableFeatures(f"{_COORDS} has no `coords` of whole numbers, level-0 (x, y) of each region. {_AGAIN}")


def _check_coords(coords: NDArray[np.int64], regions: int, slide: PublishedSlide) -> None:
    if len(coords) != regions:
        raise UnusableFeatures(
            f"{_COORDS} has {len(coords)} regions and {_REGIONS} {regions}; it must be the file of the valid ones. "
            f"{_OF_ONE_RUN}"
        )
    outside = int(((coords < 0) | (coords >= (slide.width, slide.height))).any(axis=1).sum())
    if outside:
        raise UnusableFeatures(
            f"{outside} of {regions} regions lie outside a slide of {slide.width} × {slide.height} px. Give the slide "
            "that the files were made of, or its size at level 0."
        )


def _slide_features(path: Path, region: NDArray[np.float32]) -> NDArray[np.float32]:
    """As the file has it: others may have added up in another order."""
    features = _features(_load(path, _SLIDE), _SLIDE, (region.shape[1],))
    difference = float(np.abs(features - region.mean(axis=0, dtype=np.float64)).max())
    if difference > _MEAN_TOLERATED:
        raise UnusableFeatures(
            f"{_SLIDE} is not the mean of {_REGIONS}: they differ by up to {difference:.2g}. {_OF_ONE_RUN}"
        )
    return features


def _cell_features(path: Path, index: NDArray[np.int64], coords: NDArray[np.int64]) -> NDArray[np.float32]:
    features, indices, corners = "encoded_cell_features", "selected_patch_cell_level_indices", "region_coords_level0"
    cells = _table(path, _CELLS, features, indices, corners)
    cell = _features(cells[features], f"{features} of {_CELLS}", (*index.shape, None))
    _require_equal(_whole_numbers(cells[indices], f"{indices} of {_CELLS}", index.shape), index, indices, _PATCHES)
    _require_equal(_whole_numbers(cells[corners], f"{corners} of {_CELLS}", coords.shape), coords, corners, _COORDS)
    width = cells.get("feature_dim", cell.shape[2])
    if type(width) is not int or width != cell.shape[2]:
        raise UnusableFeatures(
            f"feature_dim of {_CELLS} is {width!r:.20}, and its features are {cell.shape[2]} wide. {_AGAIN}"
        )
    return cell


def _require_equal(found: NDArray[np.int64], wanted: NDArray[np.int64], name: str, others: str) -> None:
    """Region by region."""
    different = np.flatnonzero((found != wanted).any(axis=1))
    if len(different):
        raise UnusableFeatures(
            f"{name} of {_CELLS} differ from {others} in {len(different)} regions, the first is {different[0]}. "
            f"{_OF_ONE_RUN}"
        )


def _check_metadata(path: Path, slide: PublishedSlide) -> None:
    """Where there is that file: whether the regions are what they are taken for."""
    if not path.is_file():
        return
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableFeatures(f"{_METADATA} is damaged; make it again, or give the folder without it.") from error
    wanted = {"region_size": slide.region_px, "patch_size": PICTURE_PX, "read_level_4096": 0}
    for name, value in wanted.items():
        if isinstance(said, dict) and said.get(name, value) != value:
            raise UnusableFeatures(
                f"{_METADATA} has {name} {said[name]!r:.20}, and {value} is read here. Extract the features again with "
                f"{name} {value}."
            )
