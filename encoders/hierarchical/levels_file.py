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

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.errors import StoredFileDamaged
from encoders.hierarchical.cell_kinds import CELL_KINDS
from encoders.precomputed.given_features import GivenLevels

FORMAT: Final = "eyepiece-levels"
FORMAT_VERSION: Final = 1
UNKNOWN_SLIDE: Final = "0" * 64
UNKNOWN_ENCODER: Final = "0" * 16

# What a reader takes: a slide of 370,000 px a side that is tissue all over has so many regions.
MAX_REGIONS: Final = 8_192
MAX_CELLS: Final = 8_000_000
MAX_OUTLINE_POINTS: Final = 128_000_000
# Of all datasets together, unpacked.
MAX_BYTES: Final = 2**31
_MAX_WIDTH: Final = 8_192
_COUNTED_AT_ONCE: Final = 2**20
# An index of a patch is one byte.
_MAX_PATCHES: Final = 256
_MAX_SIDE: Final = 2**31 - 1
_MAX_ATTRIBUTE_BYTES: Final = 64
_CHUNK_BYTES: Final = 2**18
# Built into HDF5: deflate, shuffle, Fletcher-32.
_FILTERS: Final = {1, 2, 3}
_OUTLINE: Final = "cells/found/outline"
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "regions/coords": np.dtype(np.int32),
    "regions/features": np.dtype(np.float32),
    "slide/features": np.dtype(np.float32),
    "patches/index": np.dtype(np.uint8),
    "patches/features": np.dtype(np.float32),
    "cells/features": np.dtype(np.float32),
    "cells/found/patch": np.dtype(np.int32),
    "cells/found/centroid": np.dtype(np.float32),
    "cells/found/kind": np.dtype(np.uint8),
    "cells/found/outline_start": np.dtype(np.int64),
    "cells/found/outline": np.dtype(np.int32),
}


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


class _Facts(Protocol):
    """What the checks below need to know of a file: its root attributes."""

    @property
    def slide_id(self) -> str: ...
    @property
    def encoder_id(self) -> str: ...
    @property
    def region_px(self) -> int: ...
    @property
    def patch_px(self) -> int: ...
    @property
    def level0_width(self) -> int | None: ...
    @property
    def level0_height(self) -> int | None: ...


def patch_coords(
    region_coords: NDArray[np.int32], patch_index: NDArray[np.uint8], region_px: int, patch_px: int
) -> NDArray[np.int64]:
    """Corners of patches, [R, k, 2], level-0 (x, y)."""
    row, column = np.divmod(patch_index.astype(np.int64), region_px // patch_px)
    corners: NDArray[np.int64] = region_coords[:, None].astype(np.int64) + np.stack([column, row], axis=-1) * patch_px
    return corners


def write_levels(path: Path, levels: Levels) -> None:
    """Writes over what is there; give it a temporary name. Raises ValueError for what `read_levels` would refuse."""
    _check_facts(levels)
    arrays = _arrays(levels)
    for name, values in arrays.items():
        if values.dtype != _DTYPES[name]:
            raise ValueError(f"{name} is {values.dtype}, not {_DTYPES[name]}")
    _check_shapes({name: values.shape for name, values in arrays.items()})
    _check_values(levels)
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
    with _translate_damage(), h5py.File(path, "r", locking=False) as file:
        facts = _read_facts(file)
        arrays = {name: np.asarray(dataset[()]) for name, dataset in _open_datasets(file).items()}
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
        _check_facts(levels)
        _check_values(levels)
    return levels


class LevelsReader:
    """A file of levels seen part by part: what was chosen, and the cells of some patches; no features.

    A context manager; used by one thread at a time. Raises StoredFileDamaged on entering when the file is cut, foreign,
    too large, or contradicts itself, and from `cells_of` when what it reads is damaged.
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
    cell_counts: NDArray[np.int64] | None
    """[R, k, kinds]: cells of each patch by kind; None where nobody knows which cells there were."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        """Opens and reads all but cells and features."""
        with _translate_damage():
            self._file = h5py.File(self._path, "r", locking=False)
        try:
            with _translate_damage():
                self._open()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self._file.close()

    def cells_of(self, first: int, last: int) -> FoundCells:
        """Cells of the patches `first … last - 1` (region · k + rank); ValueError where nobody knows the cells."""
        if self._cell_start is None:
            raise ValueError("nobody knows which cells there were")
        with _translate_damage():
            some = slice(int(self._cell_start[first]), int(self._cell_start[last]))
            start = self._read("cells/found/outline_start", slice(some.start, some.stop + 1))
            points = slice(int(start[0]), int(start[-1]))
            cell_count, point_count = (self._datasets[name].shape[0] for name in ("cells/found/kind", _OUTLINE))
            is_whole = some.start > 0 or points.start == 0, some.stop < cell_count or points.stop == point_count
            if not (all(is_whole) and 0 <= points.start <= points.stop <= point_count):
                raise ValueError("outlines lie outside the file, or leave a part of it out")
            cells = FoundCells(
                patch=self._read("cells/found/patch", some),
                centroid=self._read("cells/found/centroid", some),
                kind=self._read("cells/found/kind", some),
                outline_start=start - start[0],
                outline=self._read(_OUTLINE, points),
            )
            _check_cells(cells, self.patch_coords.reshape(-1, 2), self.patch_px)
        return cells

    def _open(self) -> None:
        vars(self).update(_read_facts(self._file))
        _check_facts(self)
        self._datasets = _open_datasets(self._file)
        self.region_coords = self._read("regions/coords")
        index = self._read("patches/index")
        _check_places(self.region_coords, index, self)
        self.patch_coords = patch_coords(self.region_coords, index, self.region_px, self.patch_px)
        self.cell_counts, self._cell_start = None, None
        if "cells/found/patch" in self._datasets:
            counts = self._count_cells(index.size)
            self.cell_counts = counts.reshape(*index.shape, len(CELL_KINDS))
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

    def _read(self, name: str, some: slice = slice(None)) -> NDArray[Any]:
        return np.asarray(self._datasets[name][some])


@contextmanager
def _translate_damage() -> Iterator[None]:
    """What h5py and the checks raise, as an error of the tree; a file that is not there stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise StoredFileDamaged("The stored levels cannot be read; delete the slide and upload it again.") from error


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


def _read_facts(file: h5py.File) -> dict[str, Any]:
    """Root attributes; raises ValueError for another format."""
    if _attribute(file, "format") != FORMAT or _attribute(file, "format_version") != FORMAT_VERSION:
        raise ValueError("not a file of levels of this version")
    return {
        "slide_id": _attribute(file, "slide_id"),
        "encoder_id": _attribute(file, "encoder_id"),
        "region_px": _attribute(file, "region_px"),
        "patch_px": _attribute(file, "patch_px"),
        "level0_width": _attribute(file, "level0_width"),
        "level0_height": _attribute(file, "level0_height"),
    }


def _attribute(file: h5py.File, name: str) -> Any:
    """A single number or text; None when there is none."""
    if name not in file.attrs:
        return None
    stored = file.attrs.get_id(name)
    if stored.shape != () or stored.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"the attribute {name} is no single value")
    value = file.attrs[name]
    return value.item() if isinstance(value, np.generic) else value


def _open_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All that belong to the file, of shapes that fit; nothing is read."""
    names = [name for name in _DTYPES if not name.startswith("cells/found/") or _has_cells(file)]
    datasets = {name: _plain_dataset(file, name) for name in names}
    _check_shapes({name: dataset.shape for name, dataset in datasets.items()})
    return datasets


def _has_cells(file: h5py.File) -> bool:
    if file.id.links.get_info(b"cells").type != h5py.h5l.TYPE_HARD:
        raise ValueError("cells is not in the file itself")
    return bool(file.id.links.exists(b"cells/found"))


def _plain_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that lies in the file itself, of the type that belongs there."""
    place = file
    for step in name.split("/"):
        if not isinstance(place, h5py.Group) or place.id.links.get_info(step.encode()).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{name} is not in the file itself")
        place = place[step]
    if not isinstance(place, h5py.Dataset) or place.is_virtual or place.external or place.shape is None:
        raise ValueError(f"{name} is not a dataset in the file itself")
    properties = place.id.get_create_plist()
    if {properties.get_filter(index)[0] for index in range(properties.get_nfilters())} - _FILTERS:
        raise ValueError(f"{name} is packed by another filter")
    if place.dtype != _DTYPES[name]:
        raise ValueError(f"{name} is {place.dtype}, not {_DTYPES[name]}")
    return place


def _check_facts(levels: _Facts) -> None:
    """Raises ValueError for impossible attributes."""
    for text, digits in ((levels.slide_id, 64), (levels.encoder_id, 16)):
        if not isinstance(text, str) or not re.fullmatch(rf"[0-9a-f]{{{digits}}}", text):
            raise ValueError("an id is missing or is none")
    sizes = [levels.region_px, levels.patch_px]
    if (levels.level0_width is None) != (levels.level0_height is None):
        raise ValueError("the slide has a width or a height, not both")
    if levels.level0_width is not None:
        sizes += [levels.level0_width, levels.level0_height or 0]
    if not all(isinstance(size, int) and 1 <= size <= _MAX_SIDE for size in sizes):
        raise ValueError("a side is no number of pixels")
    if levels.region_px % levels.patch_px or (levels.region_px // levels.patch_px) ** 2 > _MAX_PATCHES:
        raise ValueError(f"regions of {levels.region_px} px do not consist of patches of {levels.patch_px} px")


def _check_shapes(shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises ValueError where shapes are no levels, or more than a reader takes; before anything is read."""
    if sum(math.prod(shape) * _DTYPES[name].itemsize for name, shape in shapes.items()) > MAX_BYTES:
        raise ValueError("the levels are too large")
    regions, k = shapes["patches/index"] if len(shapes["patches/index"]) == 2 else (0, 0)
    region_width = shapes["slide/features"][0] if len(shapes["slide/features"]) == 1 else 0
    patch_width, cell_width = shapes["patches/features"][-1:], shapes["cells/features"][-1:]
    expected: dict[str, tuple[int, ...]] = {
        "regions/coords": (regions, 2),
        "regions/features": (regions, region_width),
        "slide/features": (region_width,),
        "patches/index": (regions, k),
        "patches/features": (regions, k, *patch_width),
        "cells/features": (regions, k, *cell_width),
    }
    if "cells/found/patch" in shapes:
        cells, points = shapes["cells/found/patch"][:1], shapes["cells/found/outline"][:1]
        if cells > (MAX_CELLS,) or points > (MAX_OUTLINE_POINTS,):
            raise ValueError("there are too many cells")
        expected |= {
            "cells/found/patch": cells,
            "cells/found/centroid": (*cells, 2),
            "cells/found/kind": cells,
            "cells/found/outline_start": tuple(count + 1 for count in cells),
            "cells/found/outline": (*points, 2),
        }
    if not (1 <= regions <= MAX_REGIONS and 1 <= k <= _MAX_PATCHES):
        raise ValueError(f"{regions} regions of {k} patches are none, or too many")
    if not all(1 <= width <= _MAX_WIDTH for width in (region_width, *patch_width, *cell_width)):
        raise ValueError("features are empty or too wide")
    for name, shape in expected.items():
        if shapes.get(name) != shape:
            raise ValueError(f"{name} is {shapes.get(name)}, not {shape}")


def _check_values(levels: Levels) -> None:
    """Raises ValueError where numbers contradict each other. Shapes are known to fit."""
    features = (levels.region_features, levels.slide_features, levels.patch_features, levels.cell_features)
    if not all(np.isfinite(values).all() for values in features):
        raise ValueError("features are not finite")
    _check_places(levels.region_coords, levels.patch_index, levels)
    if levels.cells is not None:
        _check_cells(levels.cells, levels.patch_coords().reshape(-1, 2), levels.patch_px)


def _check_places(region_coords: NDArray[np.int32], patch_index: NDArray[np.uint8], levels: _Facts) -> None:
    """Raises ValueError for regions outside the slide, and for patches that are none or come twice."""
    size = (levels.level0_width or _MAX_SIDE, levels.level0_height or _MAX_SIDE)
    if (region_coords < 0).any() or (region_coords >= size).any():
        raise ValueError("a region lies outside the slide")
    ordered = np.sort(patch_index, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any() or ordered.max() >= (levels.region_px // levels.patch_px) ** 2:
        raise ValueError("a patch comes twice or lies outside its region")


def _check_cells(cells: FoundCells, corners: NDArray[np.int64], patch_px: int) -> None:
    """Raises ValueError for cells outside their patch (`corners` [P, 2]), without an outline, or of an unknown kind."""
    start, patch = cells.outline_start, cells.patch
    if len(patch) and (int(patch[0]) < 0 or int(patch[-1]) >= len(corners) or (patch[1:] < patch[:-1]).any()):
        raise ValueError("cells are not in the order of patches")
    if start[0] != 0 or start[-1] != len(cells.outline) or (start[1:] <= start[:-1]).any():
        raise ValueError("outlines do not follow each other")
    if len(cells.kind) and int(cells.kind.max()) >= len(CELL_KINDS):
        raise ValueError("a kind of cell is unknown")
    place = cells.centroid - corners[patch]
    point = cells.outline - np.repeat(corners[patch], np.diff(start), axis=0)
    # A centroid is a middle of pixels that lie inside; float32 rounds it by up to a pixel far out on large slides.
    if not ((place > -1) & (place < patch_px + 1)).all() or not ((point >= 0) & (point < patch_px)).all():
        raise ValueError("a cell lies outside its patch")
