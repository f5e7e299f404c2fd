"""A golden vector is computed again and compared; changed weights or a changed file are found."""

import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from untrained_model import untrained_model

from encoders.golden_vector import GOLDEN_FILE, check_golden, read_golden, record_golden
from encoders.pipeline import load_encoders
from model_store.choices import with_choices
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


def test_a_worker_that_computes_other_numbers_does_not_start(golden: InstalledModel) -> None:
    with load_encoders(golden, "cpu"):
        pass  # the recorded ones
    path = golden.folder / GOLDEN_FILE
    arrays = load_file(path)
    arrays["tile_features"][0, 5] += 0.01
    save_file(arrays, path, metadata={"format_version": "1", "atol": "0.001"})

    with pytest.raises(ModelError, match=r"tile features differ by 0\.01"):
        load_encoders(golden, "cpu")


def test_a_worker_without_a_golden_vector_says_that_nothing_was_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), load_encoders(untrained_model(tmp_path), "cpu"):
        pass

    assert "no golden vector" in caplog.text


def test_slide_tokens_may_be_rounded_to_either_neighbour(golden: InstalledModel) -> None:
    vector = read_golden(golden)
    assert vector is not None
    features = {"tiles": vector.arrays["tile_features"].astype(np.float32)}
    tokens = vector.arrays["slide_tokens"].astype(np.float16)
    next_ones = np.nextafter(tokens, np.float16(np.inf))
    assert float(np.abs(next_ones.astype(np.float64) - tokens).max()) > vector.atol, "a step is more than what passes"

    assert vector.compare(features, {"slide_tokens": next_ones}).slide_tokens <= 1e-6
    with pytest.raises(ModelError, match=r"slide tokens by 0\.0"):
        vector.compare(features, {"slide_tokens": (tokens.astype(np.float32) + 0.01).astype(np.float16)})


def test_a_coarser_dtype_than_was_recorded_has_its_own_tolerance(golden: InstalledModel) -> None:
    with load_encoders(with_choices(golden, "bfloat16"), "cpu"):
        pass


def test_products_in_8_bits_are_compared_by_their_own_gate(golden: InstalledModel) -> None:
    vector = read_golden(with_choices(golden, "float8"))
    assert vector is not None

    other = {"tiles": vector.arrays["tile_features"].astype(np.float32) * 2}
    found = vector.compare(other, {"slide_tokens": vector.arrays["slide_tokens"].astype(np.float16)})

    assert (found.tile_features, found.slide_tokens) == (None, 0)
