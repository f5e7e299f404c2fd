"""A golden vector is computed again and compared; changed weights or a changed file are found."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from untrained_model import untrained_model

from encoders.golden_vector import GOLDEN_FILE, check_golden, record_golden
from model_store.errors import ModelError
from model_store.installed import InstalledModel, verify_digests


@pytest.fixture
def golden(tmp_path: Path) -> InstalledModel:
    return record_golden(untrained_model(tmp_path), "cpu")


def test_the_same_machine_gives_the_same_numbers(golden: InstalledModel) -> None:
    verify_digests(golden)
    found = check_golden(golden, "cpu")

    assert found is not None
    assert (found.tile_features, found.slide_tokens) == (0, 0)
    assert load_file(golden.folder / GOLDEN_FILE)["slide_tokens"].std() > 0.1, "the output is not trivially equal"


def test_a_model_without_one_has_none(tmp_path: Path) -> None:
    assert check_golden(untrained_model(tmp_path), "cpu") is None


@pytest.mark.parametrize("part", ["tile_encoder", "slide_encoder"])
def test_other_weights_give_other_numbers(golden: InstalledModel, part: str) -> None:
    path = golden.folder / part / "model.safetensors"
    tensors = load_file(path)
    tensors["norm.weight"] = tensors["norm.weight"] * np.float32(1.1)
    save_file(tensors, path)

    with pytest.raises(ModelError, match="give other numbers than recorded"):
        check_golden(golden, "cpu")


@pytest.mark.parametrize("name", ["tile_features", "slide_tokens", "slide_coords", "tile_pixels"])
def test_a_vector_that_does_not_fit_is_refused(golden: InstalledModel, name: str) -> None:
    path = golden.folder / GOLDEN_FILE
    arrays = load_file(path)
    arrays[name] = arrays[name][:, :1]
    save_file(arrays, path, metadata={"format_version": "1", "atol": "0.01"})

    with pytest.raises(ModelError, match="does not fit its manifest"):
        check_golden(golden, "cpu")


@pytest.mark.parametrize("metadata", [None, {"format_version": "2", "atol": "1"}, {"format_version": "1", "atol": "x"}])
def test_an_unknown_format_is_refused(golden: InstalledModel, metadata: dict[str, str] | None) -> None:
    path = golden.folder / GOLDEN_FILE
    save_file(load_file(path), path, metadata=metadata)

    with pytest.raises(ModelError, match="golden vector"):
        check_golden(golden, "cpu")
