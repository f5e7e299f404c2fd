"""A folder with a manifest and weights becomes an installed model, or the error names what does not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_kinds import documented_manifest, toy_of

from encoders.expected_shapes import expected_shapes
from model_store.compose import PROJECTOR, compose_model
from model_store.errors import ModelError
from model_store.installed import InstalledModel, verify_digests
from model_store.manifest import load_manifest
from model_store.verify import verify_shapes
from server.commands import models


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    return toy_of(documented_manifest(), tmp_path_factory.mktemp("composed"))


@pytest.fixture
def folder(composed: InstalledModel, tmp_path: Path) -> Path:
    """What it was composed of, to be spoiled."""
    return Path(shutil.copytree(composed.folder.parents[1] / "folder", tmp_path / "folder"))


def compose(folder: Path) -> InstalledModel:
    shapes = expected_shapes(load_manifest(folder / "manifest.toml"))
    return compose_model(folder, folder.parent / "models", shapes)


def test_it_is_a_complete_and_verified_model(composed: InstalledModel) -> None:
    verify_digests(composed)
    verify_shapes(composed, expected_shapes(composed.manifest))

    config = json.loads((composed.llm_folder / "config.json").read_text())
    assert config["architectures"] == ["SlideQwen2ForConditionalGeneration"]
    assert (config["image_token"], config["image_token_index"]) == ("<|image_pad|>", 3)
    assert (config["slide_token_width"], config["mm_hidden_size"], config["max_slide_tokens"]) == (64, 96, 1500)
    assert json.loads((composed.llm_folder / "generation_config.json").read_text())["eos_token_id"] == 2
    held = {name for file in composed.llm_folder.glob("*.safetensors") for name in load_file(file)}
    index = json.loads((composed.llm_folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == held, "vLLM reads what the index names, the projector too"


def test_the_command_installs_it_and_says_what_comes_next(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models.compose(folder, folder.parent / "models")

    assert "next: eyepiece up --model my-model" in capsys.readouterr().out
    assert [path.name for path in (folder.parent / "models").iterdir()] == ["my-model"], "nothing is left beside it"


def test_a_llava_prompt_adds_its_placeholder_beyond_the_vocabulary(tmp_path: Path) -> None:
    model = toy_of(documented_manifest(("prompt", "llava"), ("projector", "none")), tmp_path)

    config = json.loads((model.llm_folder / "config.json").read_text())
    assert config["architectures"] == ["WsiLlavaForConditionalGeneration"]
    assert config["image_token_index"] == config["text_config"]["vocab_size"]
    assert config["mm_projector_type"] == "identity"


def without(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def config_with(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "llm" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def tensors_with(path: str, **changes: torch.Tensor) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        save_file({**load_file(folder / path), **changes}, folder / path, metadata={"format": "pt"})

    return change


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "llm" / "model.safetensors"), folder / "llm" / "pytorch_model.bin")
    (folder / "llm" / "model.safetensors").unlink()


def without_placeholder(folder: Path) -> None:
    path = folder / "llm" / "tokenizer.json"
    path.write_text(path.read_text().replace("<|image_pad|>", "<|picture|>"))


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights of an encoder": (without("slide_encoder/model.safetensors"), "lacks slide_encoder/model.safetensors"),
    "no projector": (without(PROJECTOR), "lacks projector/model.safetensors"),
    "no tokenizer": (without("llm/tokenizer.json"), "lacks tokenizer.json"),
    "no config": (without("llm/config.json"), r"llm/config\.json is missing"),
    "another family": (config_with(model_type="mamba"), "wrong at 'model_type'"),
    "tied embeddings": (config_with(tie_word_embeddings=True), "wrong at 'tie_word_embeddings'"),
    "a pickle": (as_pickle, r"llm/pytorch_model\.bin is a pickle"),
    "no token for a slide": (without_placeholder, r"no token '<\|image_pad\|>'"),
    "a tensor too many": (tensors_with(PROJECTOR, more=torch.ones(2)), "has a tensor 'model.mm_projector.more'"),
    "another width": (tensors_with(PROJECTOR, **{"0.weight": torch.ones(64, 95)}), r"shape \[64, 95\]"),
    "another encoder": (tensors_with("tile_encoder/model.safetensors", cls_token=torch.ones(1, 1, 2)), "'cls_token'"),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_what_does_not_fit_is_named_and_nothing_is_installed(fault: str, folder: Path) -> None:
    spoil, sentence = SPOILED[fault]
    spoil(folder)

    with pytest.raises(ModelError, match=sentence):
        compose(folder)

    assert not (folder.parent / "models" / "my-model").exists()
