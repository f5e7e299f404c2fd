"""Verification compares every tensor's name and shape with what the manifest describes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from untrained_model import untrained_model

from encoders.expected_shapes import expected_shapes
from model_store.errors import ModelError
from model_store.installed import InstalledModel
from model_store.verify import verify_shapes


def change(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_converted_and_a_written_model_fit_their_manifests(converted_toy: InstalledModel, tmp_path: Path) -> None:
    for model in (converted_toy, untrained_model(tmp_path)):
        assert verify_shapes(model, expected_shapes(model.manifest)) > 100


@pytest.mark.parametrize("file", ["tile_encoder/model.safetensors", "slide_encoder/model.safetensors"])
@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda tensors: tensors.pop("cls_token"), "lacks the tensor 'cls_token'"),
        (lambda tensors: tensors.update(head=torch.ones(2)), "has a tensor 'head' that"),
        (lambda tensors: tensors.update(cls_token=torch.ones(1, 1, 2)), r"'cls_token' has the shape \[1, 1, 2\]"),
    ],
)
def test_a_tensor_of_an_encoder_that_does_not_fit_is_named(
    toy_copy: InstalledModel, file: str, edit: Callable[[dict[str, torch.Tensor]], object], sentence: str
) -> None:
    change(toy_copy.folder / file, edit)

    with pytest.raises(ModelError, match=sentence):
        verify_shapes(toy_copy, expected_shapes(toy_copy.manifest))


def test_a_tensor_of_the_language_model_that_is_missing_is_named(toy_copy: InstalledModel) -> None:
    change(sorted(toy_copy.llm_folder.glob("*.safetensors"))[1], lambda tensors: tensors.pop(sorted(tensors)[0]))

    with pytest.raises(ModelError, match=r"The language model lacks the tensor '(lm_head|model)"):
        verify_shapes(toy_copy, expected_shapes(toy_copy.manifest))


def test_a_damaged_file_is_named(toy_copy: InstalledModel) -> None:
    toy_copy.file(toy_copy.manifest.first_input.tile_encoder.weights).write_bytes(
        toy_copy.file(toy_copy.manifest.first_input.tile_encoder.weights).read_bytes()[:1000]
    )

    with pytest.raises(ModelError, match=r"tile_encoder/model\.safetensors is damaged"):
        verify_shapes(toy_copy, expected_shapes(toy_copy.manifest))


def test_a_config_that_disagrees_with_the_manifest_is_refused(toy_copy: InstalledModel) -> None:
    path = toy_copy.llm_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mm_hidden_size": 96}))

    with pytest.raises(ModelError, match="disagree on the projector's width"):
        verify_shapes(toy_copy, expected_shapes(toy_copy.manifest))
