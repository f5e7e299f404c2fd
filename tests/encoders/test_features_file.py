from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from encoders.errors import StoredFileDamaged
from encoders.features_file import read_features, write_features
from encoders.types import TileFeatures
from model_store.contracts.tile_encoder import Reduction


def test_what_is_written_is_read_again(tmp_path: Path, features: TileFeatures) -> None:
    write_features(tmp_path / "f.h5", features)

    again = read_features(tmp_path / "f.h5")

    assert np.array_equal(again.features, features.features)
    assert again.features.dtype == np.float32
    assert np.array_equal(again.plan.coords, features.plan.coords)
    assert {**asdict(again.plan), "coords": None} == {**asdict(features.plan), "coords": None}


def test_a_plan_without_objective_power_keeps_none(tmp_path: Path, features: TileFeatures) -> None:
    plan = replace(features.plan, objective_power=None, mpp_source="override", tile_px_level0=514.048)

    write_features(tmp_path / "f.h5", replace(features, plan=plan))

    again = read_features(tmp_path / "f.h5").plan
    assert (again.objective_power, again.mpp_source, again.tile_px_level0) == (None, "override", 514.048)


@pytest.mark.parametrize("reduction", ["area", "dct"])
def test_how_tiles_were_reduced_is_kept(tmp_path: Path, features: TileFeatures, reduction: Reduction) -> None:
    plan = replace(features.plan, reduction=reduction)

    write_features(tmp_path / "f.h5", replace(features, plan=plan))

    assert read_features(tmp_path / "f.h5").plan.reduction == reduction


def test_a_file_from_before_there_was_a_choice_was_reduced_by_area(tmp_path: Path, features: TileFeatures) -> None:
    write_features(tmp_path / "f.h5", features)
    with h5py.File(tmp_path / "f.h5", "a") as file:
        del file.attrs["reduction"]

    assert read_features(tmp_path / "f.h5").plan.reduction == "area"


def test_writing_replaces_the_file_at_once_and_leaves_nothing_beside_it(tmp_path: Path, features: TileFeatures) -> None:
    write_features(tmp_path / "f.h5", features)
    write_features(tmp_path / "f.h5", replace(features, features=features.features * 2))

    assert [path.name for path in tmp_path.iterdir()] == ["f.h5"]
    assert np.array_equal(read_features(tmp_path / "f.h5").features, features.features * 2)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, features: TileFeatures) -> None:
    write_features(tmp_path / "f.h5", features)
    unwritable = replace(features, features=np.array([[object()]]))

    with pytest.raises(TypeError):
        write_features(tmp_path / "f.h5", unwritable)

    assert [path.name for path in tmp_path.iterdir()] == ["f.h5"]
    assert len(read_features(tmp_path / "f.h5").features) == 3


@pytest.mark.parametrize("keep", [0, 100, 2_000])
def test_a_cut_file_is_damaged(tmp_path: Path, features: TileFeatures, keep: int) -> None:
    path = tmp_path / "f.h5"
    write_features(path, features)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(StoredFileDamaged):
        read_features(path)


def test_a_flipped_bit_of_a_number_is_an_error_for_whoever_reads_it(tmp_path: Path, features: TileFeatures) -> None:
    path = tmp_path / "f.h5"
    write_features(path, features)
    content = bytearray(path.read_bytes())
    content[content.index(features.features.tobytes())] ^= 1
    path.write_bytes(content)

    with pytest.raises(StoredFileDamaged):
        read_features(path)
    with h5py.File(path) as file, pytest.raises(OSError, match="filter returned failure"):
        file["features"][()]  # as TRIDENT and CLAM read it


def test_a_missing_file_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(StoredFileDamaged):
        read_features(tmp_path / "none.h5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eyepiece_format_version", 2),
        ("mpp", np.nan),
        ("mpp", -1.0),
        ("mpp_source", "guessed"),
        ("tile_px", 0),
        ("reduction", "lanczos"),
    ],
)
def test_an_attribute_that_cannot_be_is_damaged(
    tmp_path: Path, features: TileFeatures, name: str, value: object
) -> None:
    write_features(tmp_path / "f.h5", features)
    with h5py.File(tmp_path / "f.h5", "a") as file:
        file.attrs[name] = value

    with pytest.raises(StoredFileDamaged):
        read_features(tmp_path / "f.h5")


@pytest.mark.parametrize("name", ["features", "coords"])
def test_arrays_that_do_not_belong_together_are_damaged(tmp_path: Path, features: TileFeatures, name: str) -> None:
    write_features(tmp_path / "f.h5", features)
    with h5py.File(tmp_path / "f.h5", "a") as file:
        cut = file[name][:2]
        del file[name]
        file[name] = cut

    with pytest.raises(StoredFileDamaged):
        read_features(tmp_path / "f.h5")
