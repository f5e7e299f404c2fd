"""What a file of levels may be: its format, its bounds, and numbers that do not contradict each other.

A file that passes is safe to read whole or in part, whoever wrote it.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.errors import StoredFileDamaged
from encoders.hierarchical.cell_kinds import CELL_KINDS
from encoders.hierarchical.levels import FoundCells, Levels

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
# An index of a patch is one byte.
_MAX_PATCHES: Final = 256
_MAX_SIDE: Final = 2**31 - 1
_MAX_ATTRIBUTE_BYTES: Final = 64
# Built into HDF5: deflate, shuffle, Fletcher-32.
_FILTERS: Final = {1, 2, 3}
OUTLINE: Final = "cells/found/outline"
DTYPES: Final[dict[str, np.dtype[Any]]] = {
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


class Facts(Protocol):
    """What the checks need to know of a file: its root attributes."""

    @property
    def slide_id(self) -> str:
        """SHA-256 of the slide."""

    @property
    def encoder_id(self) -> str:
        """Of whoever made the levels."""

    @property
    def region_px(self) -> int:
        """A region's side in level-0 pixels."""

    @property
    def patch_px(self) -> int:
        """A patch's."""

    @property
    def level0_width(self) -> int | None:
        """None where nobody knows."""

    @property
    def level0_height(self) -> int | None:
        """None where nobody knows."""


@contextmanager
def translate_damage() -> Iterator[None]:
    """What h5py and the checks raise, as an error of the tree; a file that is not there stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise StoredFileDamaged("The stored levels cannot be read; delete the slide and upload it again.") from error


def read_facts(file: h5py.File) -> dict[str, Any]:
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


def open_datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All that belong to the file, of shapes that fit; nothing is read."""
    names = [name for name in DTYPES if not name.startswith("cells/found/") or _has_cells(file)]
    datasets = {name: _plain_dataset(file, name) for name in names}
    check_shapes({name: dataset.shape for name, dataset in datasets.items()})
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
    if place.dtype != DTYPES[name]:
        raise ValueError(f"{name} is {place.dtype}, not {DTYPES[name]}")
    return place


def check_facts(levels: Facts) -> None:
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


def check_shapes(shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises ValueError where shapes are no levels, or more than a reader takes; before anything is read."""
    if sum(math.prod(shape) * DTYPES[name].itemsize for name, shape in shapes.items()) > MAX_BYTES:
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


def check_values(levels: Levels) -> None:
    """Raises ValueError where numbers contradict each other. Shapes are known to fit."""
    features = (levels.region_features, levels.slide_features, levels.patch_features, levels.cell_features)
    if not all(np.isfinite(values).all() for values in features):
        raise ValueError("features are not finite")
    check_places(levels.region_coords, levels.patch_index, levels)
    if levels.cells is not None:
        check_cells(levels.cells, levels.patch_coords().reshape(-1, 2), levels.patch_px)


def check_places(region_coords: NDArray[np.int32], patch_index: NDArray[np.uint8], levels: Facts) -> None:
    """Raises ValueError for regions outside the slide, and for patches that are none or come twice."""
    size = (levels.level0_width or _MAX_SIDE, levels.level0_height or _MAX_SIDE)
    if (region_coords < 0).any() or (region_coords >= size).any():
        raise ValueError("a region lies outside the slide")
    ordered = np.sort(patch_index, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any() or ordered.max() >= (levels.region_px // levels.patch_px) ** 2:
        raise ValueError("a patch comes twice or lies outside its region")


def check_cells(cells: FoundCells, corners: NDArray[np.int64], patch_px: int) -> None:
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
