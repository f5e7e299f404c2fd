"""A trained model in LLaVA's two layouts becomes the same weights when `models convert` reads it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toy_checkpoint import Toy, toy_manifest
from toy_language_model import TOY_LOW_RANK, toy_language_model

from model_store.convert.convert_llm import LlmSources, convert_llm
from model_store.convert.llava_checkpoint import find_checkpoint
from training.errors import TrainingError
from training.language_model.configuration import load_published
from training.language_model.published_layout import llava_weights, write_lora, write_merged
from training.language_model.slide_language_model import SlideLanguageModel

REFERENCE = Path(__file__).parents[2] / "model_store" / "reference_checkpoints"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = Toy(tmp_path_factory.mktemp("toy"), toy_manifest())
    toy.write_tokenizer("tokenizer")
    return toy


@pytest.fixture(scope="module")
def model(toy: Toy) -> SlideLanguageModel:
    """With pairs that do something."""
    model = toy_language_model(TOY_LOW_RANK, toy.vocabulary, toy.manifest.projector.width)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def converted(toy: Toy, downloads: Path) -> dict[str, Tensor]:
    served = downloads / "served"
    served.mkdir()
    manifest = toy.manifest.model_copy(update={"llm": toy.manifest.llm.model_copy(update={"dtype": "float32"})})
    convert_llm(LlmSources(find_checkpoint(downloads / "llm", downloads / "llm_base")), manifest, served, print)
    return {name: tensor for file in served.glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(("shard_bytes", "shards"), [(10**9, 1), (50_000, 9)])
def test_a_merged_folder_converts_to_the_same_weights(
    shard_bytes: int, shards: int, toy: Toy, model: SlideLanguageModel, tmp_path: Path
) -> None:
    write_merged(model, toy.folder / "tokenizer", tmp_path / "llm", torch.float32, shard_bytes)

    assert_equal(converted(toy, tmp_path), dict(llava_weights(model)))
    assert len(list((tmp_path / "llm").glob("*.safetensors"))) == shards


def test_a_lora_folder_converts_on_its_base_to_the_same_weights(
    toy: Toy, model: SlideLanguageModel, tmp_path: Path
) -> None:
    base = toy_language_model(None, toy.vocabulary, toy.manifest.projector.width)
    write_merged(base, toy.folder / "tokenizer", tmp_path / "llm_base", torch.float32)
    write_lora(model, "llm_base", tmp_path / "llm")

    found = converted(toy, tmp_path)

    assert_equal(found, dict(llava_weights(model)))
    assert not torch.equal(
        found["model.layers.0.mlp.up_proj.weight"], dict(llava_weights(base))["model.layers.0.mlp.up_proj.weight"]
    )


def shapes(path: Path) -> dict[str, torch.Size]:
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return {name: tensor.shape for name, tensor in tensors.items() if "vision_tower" not in name}


def test_names_are_those_that_llavas_own_training_writes(toy: Toy, model: SlideLanguageModel, tmp_path: Path) -> None:
    write_lora(model, "merged", tmp_path / "lora")
    write_merged(model, toy.folder / "tokenizer", tmp_path / "merged")

    adapter, others = Path("lora/adapter_model.safetensors"), Path("lora/non_lora_trainables.bin")
    assert shapes(tmp_path / adapter) == shapes(REFERENCE / adapter)
    assert shapes(tmp_path / others).keys() == shapes(REFERENCE / others).keys()
    whole = shapes(REFERENCE / "merged" / "pytorch_model.bin")
    assert shapes(tmp_path / "merged" / "model.safetensors").keys() == whole.keys()


@pytest.mark.parametrize("layout", ["merged", "lora"])
def test_the_config_says_all_that_the_references_says(
    layout: str, toy: Toy, model: SlideLanguageModel, tmp_path: Path
) -> None:
    write_lora(model, "merged", tmp_path / "lora")
    write_merged(model, toy.folder / "tokenizer", tmp_path / "merged")

    mine, its = (json.loads((folder / layout / "config.json").read_text()) for folder in (tmp_path, REFERENCE))
    described = {"_name_or_path", "transformers_version", "mm_projector_lr", "pretraining_tp", "attention_dropout"}
    assert its.keys() - mine.keys() <= described
    assert mine["architectures"] == its["architectures"]
    assert mine["model_type"] == its["model_type"]


def test_the_adapters_config_has_what_decides_the_weights(model: SlideLanguageModel, tmp_path: Path) -> None:
    write_lora(model, "merged", tmp_path / "lora")

    mine, its = (json.loads((folder / "lora" / "adapter_config.json").read_text()) for folder in (tmp_path, REFERENCE))
    assert sorted(mine.pop("target_modules")) == sorted(its.pop("target_modules"))
    decisive = ("r", "lora_alpha", "peft_type", "bias", "use_dora", "use_rslora", "fan_in_fan_out", "task_type")
    assert {key: mine[key] for key in decisive} == {key: its[key] for key in decisive}


def test_a_published_folder_is_trained_on(toy: Toy, model: SlideLanguageModel, tmp_path: Path) -> None:
    write_merged(model, toy.folder / "tokenizer", tmp_path / "merged", torch.float32)
    again = toy_language_model(None, toy.vocabulary, toy.manifest.projector.width)

    load_published(again, tmp_path / "merged")

    assert_equal(dict(llava_weights(again)), dict(llava_weights(model)))


def test_a_folder_that_exists_is_left_alone(toy: Toy, model: SlideLanguageModel, tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()

    with pytest.raises(TrainingError, match="exists already"):
        write_merged(model, toy.folder / "tokenizer", tmp_path / "llm")


def test_a_model_without_lora_has_no_such_layout(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="without LoRA"):
        write_lora(toy_language_model(), "merged", tmp_path / "llm")


def test_a_weight_beyond_half_precision_is_named(toy: Toy, tmp_path: Path) -> None:
    model = toy_language_model(None, toy.vocabulary, toy.manifest.projector.width)
    model.mm_projector[2].bias.data[0] = 1e6

    with pytest.raises(TrainingError, match=r"model\.mm_projector\.2\.bias .* float16"):
        write_merged(model, toy.folder / "tokenizer", tmp_path / "llm")
    assert not (tmp_path / "llm").exists()
