"""HDF5 as TRIDENT, CLAM and we write it: `features`, `coords`, attributes. Runs in the child only.

Nothing outside the file is followed: no external or soft link, no virtual or externally stored dataset, no filter
that would be loaded from disk.
"""

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.errors import SlideError, UnreadableSlide, UnusableFeatures
from encoders.precomputed.given_features import PLAN_STATEMENTS, TRIDENT_STATEMENTS, LevelsShape

# Built into HDF5 or h5py: deflate, shuffle, Fletcher-32, LZF.
_BUILT_IN_FILTERS = {1, 2, 3, 32000}
_MAX_ATTRIBUTE_BYTES = 64


class Hdf5Features:
    """An open file."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = h5py.File(path, "r", locking=False)
            self._features = _plain_dataset(self._file, "features")
            self._coords = _plain_dataset(self._file, "coords") if _has(self._file, "coords") else None
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreadable() from error
        self._shape = _two_dimensions(self._features.shape)
        if self._features.dtype.kind != "f" or self._features.dtype.itemsize > 8:
            raise UnusableFeatures("`features` must be 16-, 32- or 64-bit floating-point numbers; save them so.")

    levels: LevelsShape | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; a leading axis of one is dropped."""
        return self._shape

    def coords(self) -> NDArray[np.generic] | None:
        """The dataset `coords`; its shape is known to be sane before it is read."""
        if self._coords is None:
            return None
        if self._coords.shape != (self._shape[0], 2):
            raise UnusableFeatures(
                "`coords` must have one row of level-0 (x, y) for each row of `features`; save them so."
            )
        return _read(self._coords, ...)

    def statements(self) -> dict[str, object]:
        """Attributes of the root and of `coords`."""
        found = {name: _attribute(self._file, name) for name in PLAN_STATEMENTS}
        if self._coords is not None:
            found |= {name: _attribute(self._coords, name) for name in TRIDENT_STATEMENTS}
        return {name: value for name, value in found.items() if value is not None}

    def rows(self, first: int, count: int) -> NDArray[np.float32]:
        """Some rows of `features`."""
        where: object = slice(first, first + count)
        if self._features.ndim == 3:
            where = (0, where)
        with np.errstate(over="ignore"):  # beyond float32 it becomes infinite, which the parent refuses
            return _read(self._features, where).astype(np.float32)


def _plain_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    if not _has(file, name) or file.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise UnusableFeatures(
            f"The HDF5 file needs a dataset `{name}` of its own, directly at its root; write it there."
        )
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise UnusableFeatures(f"`{name}` must be a dataset that lies in the file itself; copy it into the file.")
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if filters - _BUILT_IN_FILTERS:
        raise UnusableFeatures(f"`{name}` is compressed with a filter that is not built in; use gzip or none.")
    return dataset


def _has(file: h5py.File, name: str) -> bool:
    """Whether the root has a link of this name; `name in file` would follow it."""
    return bool(file.id.links.exists(name.encode()))


def _two_dimensions(shape: tuple[int, ...] | None) -> tuple[int, int]:
    if shape is not None and len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if shape is None or len(shape) != 2:
        raise UnusableFeatures("Features must be an array of rows × columns, or 1 × rows × columns; save them so.")
    return shape[0], shape[1]


def _attribute(owner: h5py.File | h5py.Dataset, name: str) -> object:
    """A single number or short text, None when there is none."""
    if name not in owner.attrs:
        return None
    stored = owner.attrs.get_id(name)
    if stored.shape not in ((), (1,)) or stored.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
        raise UnusableFeatures(f"The file's attribute `{name}` must be a single value; correct or remove it.")
    value = np.asarray(owner.attrs[name]).reshape(-1)[0]
    plain = value.item() if isinstance(value, np.generic) else value
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def _read(dataset: h5py.Dataset, where: object) -> NDArray[np.generic]:
    try:
        return np.asarray(dataset[where])
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable() from error


def _unreadable() -> SlideError:
    return UnreadableSlide(
        "The features file is cut or damaged, or needs more memory than its reader is allowed; save it again."
    )
