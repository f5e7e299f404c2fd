"""The features file as TRIDENT and CLAM users read it: with h5py, by these names."""

from pathlib import Path

import h5py
import numpy as np

from encoders.features_file import write_features
from encoders.types import TileFeatures, TilePlan

PLAN = TilePlan(
    width=5_000,
    height=4_000,
    mpp=0.2525,
    mpp_source="property",
    objective_power=40.0,
    target_mpp=0.5,
    tile_px=256,
    tile_px_level0=507.0,
    level=0,
    read_px=507,
    coords=np.array([[0, 507], [507, 507]], dtype=np.int64),
)


def test_the_fields_names_shapes_and_attributes_are_there(tmp_path: Path) -> None:
    write_features(tmp_path / "f.h5", TileFeatures(PLAN, np.ones((2, 1536), dtype=np.float32)))

    with h5py.File(tmp_path / "f.h5", "r") as file:
        assert (file["features"].shape, file["features"].dtype) == ((2, 1536), np.float32)
        assert file["coords"][:].tolist() == [[0, 507], [507, 507]]
        attributes = {name: int(value) for name, value in file["coords"].attrs.items()}

    assert attributes == {
        "patch_size": 256,
        "patch_size_level0": 507,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "level0_width": 5_000,
        "level0_height": 4_000,
    }


def test_nothing_in_it_can_name_a_patient_or_a_path(tmp_path: Path) -> None:
    write_features(tmp_path / "f.h5", TileFeatures(PLAN, np.ones((2, 8), dtype=np.float32)))

    with h5py.File(tmp_path / "f.h5", "r") as file:
        texts = [value for value in file.attrs.values() if isinstance(value, str)]
        names = set(file.attrs) | set(file["coords"].attrs) | set(file["features"].attrs)

    assert texts == ["property", "area"]
    assert names.isdisjoint({"name", "savetodir", "save_path"})
    assert str(tmp_path).encode() not in (tmp_path / "f.h5").read_bytes()
