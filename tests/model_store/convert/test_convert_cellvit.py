"""A CellViT-256 checkpoint becomes the network that it was, or is refused with the reason."""

import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_cells import cellvit_weight, drawn_pictures

from encoders.hierarchical.cellvit import CellVit256
from encoders.load_weights import load_weights
from model_store.convert.convert_cellvit import CellvitSettings, convert_cellvit, read_cellvit_settings
from model_store.errors import ModelError

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 4, "num_heads": 2, "channels": (24, 16, 12, 8)}
CONFIG = {
    "data.num_nuclei_classes": 6,
    "data.num_tissue_classes": 19,
    "model.backbone": "ViT256",
    "transformations.normalize.mean": [0.5, 0.4, 0.3],
    "transformations.normalize.std": [0.25, 0.5, 0.5],
}


def small_network(**changed: Any) -> CellVit256:
    with torch.device("meta"):
        return CellVit256(**{**SMALL, **changed}).eval()


def shapes(model: CellVit256) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@cache
def small_weights() -> dict[str, torch.Tensor]:
    return {name: cellvit_weight(name, shape) for name, shape in shapes(small_network()).items()}


def checkpoint(**changed: Any) -> dict[str, Any]:
    """As the published trainer saves it."""
    weights = {name: weight.clone() for name, weight in small_weights().items()}
    return {
        "arch": "CellViT256", "epoch": 130, "model_state_dict": weights, "best_metric": np.float64(0.49),
        "config": CONFIG, "wandb_id": "a1", "scaler_state_dict": None, **changed,
    }  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def save(content: dict[str, Any]) -> Path:
        path = tmp_path / "CellViT-256-x40.pth"
        torch.save(content, path)
        return path

    return save


def test_the_converted_network_is_the_same_to_the_last_bit(saved: Callable[..., Path], tmp_path: Path) -> None:
    content, expected = checkpoint(), shapes(small_network())
    published = small_network()
    published.load_state_dict(content["model_state_dict"], strict=True, assign=True)

    dropped = convert_cellvit(saved(content), expected, tmp_path / "cellvit.safetensors")

    served = small_network()
    load_weights(served, tmp_path / "cellvit.safetensors", "cell network")
    picture = torch.from_numpy(drawn_pictures(2, 32, 48))
    torch.testing.assert_close(served(picture).kind, published(picture).kind, atol=0, rtol=0)
    torch.testing.assert_close(served(picture).nucleus, published(picture).nucleus, atol=0, rtol=0)
    assert set(dropped) == {name for name in expected if name.endswith("num_batches_tracked")}
    assert dropped


def test_the_settings_are_the_checkpoints_own(saved: Callable[..., Path]) -> None:
    assert read_cellvit_settings(saved(checkpoint())) == CellvitSettings(6, 19, (0.5, 0.4, 0.3), (0.25, 0.5, 0.5))


def test_settings_in_tables_are_the_same(saved: Callable[..., Path]) -> None:
    data = {"num_nuclei_classes": 7, "num_tissue_classes": 19}

    settings = read_cellvit_settings(saved(checkpoint(config={"data": data, "transformations": {}})))

    assert settings == CellvitSettings(7, 19, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"arch": "CellViTSAM"}, "holds 'CellViTSAM'"),
        ({"config": None}, "says nothing of its classes"),
        ({"config": {**CONFIG, "model.regression_loss": True}}, "two more maps"),
        ({"config": {**CONFIG, "data.num_nuclei_classes": None}}, "not a number of classes"),
        ({"config": {**CONFIG, "data.num_tissue_classes": 0}}, "not a number of classes"),
        ({"config": {**CONFIG, "transformations.normalize.mean": [0.5, 0.5]}}, "not three numbers"),
        ({"config": {**CONFIG, "transformations.normalize.std": [123.7, 58.4, 57.1]}}, "numbers of 0 to 1"),
        ({"config": {**CONFIG, "transformations.normalize.std": [0.5, 0.0, 0.5]}}, "numbers of 0 to 1"),
    ],
)
def test_other_checkpoints_are_refused(saved: Callable[..., Path], changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_cellvit_settings(saved(checkpoint(**changed)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda weights: weights.pop("decoder3.0.block.0.bias"), "lacks the tensors 'decoder3.0.block.0.bias'"),
        (lambda weights: weights.update(extra=torch.zeros(3)), "'extra' .* has no place"),
        (lambda weights: weights.update({"encoder.head.bias": torch.zeros(18)}), r"has the shape \[18\]"),
        (lambda weights: weights["encoder.norm.bias"].fill_(float("nan")), "NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    saved: Callable[..., Path], tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    content = checkpoint()
    change(content["model_state_dict"])

    with pytest.raises(ModelError, match=reason):
        convert_cellvit(saved(content), shapes(small_network()), tmp_path / "cellvit.safetensors")


def test_a_file_without_weights_is_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model_state_dict"):
        convert_cellvit(saved({"teacher": {}}), shapes(small_network()), tmp_path / "cellvit.safetensors")


def test_a_number_as_numpy_1_saved_it_is_read(saved: Callable[..., Path], tmp_path: Path) -> None:
    path = saved(checkpoint())
    old = tmp_path / "old.pth"
    # The pickle lies in the archive uncompressed; the path of numpy 1.x is a character shorter.
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))

    assert old.read_bytes().count(b"numpy.core.multiarray") == 1
    assert read_cellvit_settings(old).cell_kinds == 6
