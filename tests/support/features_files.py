"""Features files as others write them, good ones and hostile ones."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

WIDTH = 192  # of the untrained model's tile features
COORDS = np.array([[512, 256], [0, 0], [256, 0], [0, 256]], dtype=np.int64)
TRIDENT_ATTRIBUTES = {
    "patch_size": 256,
    "patch_size_level0": 256,
    "level0_magnification": 20,
    "target_magnification": 20,
    "overlap": 0,
    "level0_width": 2048,
    "level0_height": 1536,
    "name": "TCGA-XX",
    "savetodir": "/data/of/somebody",
}


def tile_features(rows: int = len(COORDS), width: int = WIDTH) -> NDArray[np.float32]:
    """Row i begins with i, so that its place can be followed."""
    values = np.random.default_rng(3).standard_normal((rows, width)).astype(np.float32)
    values[:, 0] = np.arange(rows)
    return values


def write_hdf5(path: Path, features: Any = None, coords: Any = COORDS, **attributes: Any) -> Path:
    """A file in TRIDENT's layout with `attributes` on `coords`."""
    with h5py.File(path, "w") as file:
        file["features"] = tile_features() if features is None else features
        if coords is not None:
            file["coords"] = coords
            file["coords"].attrs.update(attributes)
    return path


def write_torch(path: Path, content: Any) -> Path:
    """What torch.save writes."""
    torch.save(content, path)
    return path
