"""The published size: what the file says, how many weights that is, and a step of the same thing at toy depth."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_language_model import OneBatch, toy_batch

from training.errors import CheckpointMismatch, TrainingError
from training.language_model.configuration import (
    CONFIGURATIONS,
    LanguageModelConfiguration,
    load_published,
    new_language_model,
    read_configuration,
)
from training.language_model.low_rank import LowRank
from training.loop.run_stage import run_stage
from training.loop.settings import learning_rate, rate_factor

VICUNA = CONFIGURATIONS / "vicuna-7b.toml"
REFERENCE = Path(__file__).parents[2] / "model_store" / "reference_checkpoints"


@pytest.fixture(scope="module")
def vicuna() -> LanguageModelConfiguration:
    return read_configuration(VICUNA)


def at_toy_size(configuration: LanguageModelConfiguration) -> LanguageModelConfiguration:
    """All but the sizes: one layer, narrow."""
    shape = replace(configuration.llama, vocabulary=30, hidden=64, layers=1, heads=2, intermediate=96)
    settings = replace(configuration.instruct, steps=2, prefetch_workers=0)
    return configuration.model_copy(update={"llama": shape, "projector_width": 24, "instruct": settings})


def test_the_full_size_has_as_many_weights_as_the_published_model(vicuna: LanguageModelConfiguration) -> None:
    with torch.device("meta"):
        model = new_language_model(vicuna)

    adapters = sum(parameter.numel() for name, parameter in model.named_parameters() if ".lora_" in name)
    assert sum(parameter.numel() for parameter in model.mm_projector.parameters()) == 20_979_712
    assert sum(parameter.numel() for parameter in model.llama.parameters()) - adapters == 6_738_415_616
    # r × (in + out) of the seven linear layers, 32 times.
    assert adapters == 32 * 128 * (4 * (4096 + 4096) + 3 * (4096 + 11008))


def test_rates_and_batch_are_the_published_ones(vicuna: LanguageModelConfiguration) -> None:
    settings = vicuna.instruct

    assert vicuna.low_rank == LowRank(rank=128, alpha=256, dropout=0.05)
    assert vicuna.step_batch(processes=1) == 128
    assert settings.steps == 175_450 * 3 // 128
    assert max(learning_rate(settings, step) for step in range(settings.steps)) == 2e-4
    assert 2e-4 * rate_factor(settings, "mm_projector.2.bias") == pytest.approx(2e-5)
    assert rate_factor(settings, "llama.model.layers.0.mlp.up_proj.lora_A.default.weight") == 1


def test_it_takes_steps_at_toy_size(vicuna: LanguageModelConfiguration, tmp_path: Path) -> None:
    configuration = at_toy_size(vicuna)
    model, before = new_language_model(configuration), new_language_model(configuration).state_dict()
    base = model.llama.model.layers[0].mlp.up_proj.base_layer.weight.clone()

    run_stage(model, OneBatch(toy_batch()), configuration.instruct, tmp_path)

    layer = model.llama.model.layers[0].mlp.up_proj
    assert layer.lora_B["default"].weight.abs().sum() > 0
    assert torch.equal(layer.base_layer.weight, base)
    assert layer.base_layer.weight.dtype == torch.bfloat16
    assert before.keys() == model.state_dict().keys()


def test_it_starts_from_a_published_llama(vicuna: LanguageModelConfiguration) -> None:
    configuration = at_toy_size(vicuna)
    shape = replace(configuration.llama, vocabulary=420, layers=2)
    configuration = configuration.model_copy(update={"llama": shape, "projector_width": 128, "base_dtype": "fp32"})

    model = new_language_model(configuration, REFERENCE / "base")

    published = torch.load(REFERENCE / "base" / "pytorch_model.bin", weights_only=True)
    found = model.llama.model.layers[1].mlp.up_proj.base_layer.weight
    assert torch.equal(found, published["model.layers.1.mlp.up_proj.weight"].float())


def test_a_published_model_of_another_size_is_refused(vicuna: LanguageModelConfiguration) -> None:
    model = new_language_model(at_toy_size(vicuna).model_copy(update={"low_rank": None}))

    with pytest.raises(CheckpointMismatch, match=r"has lm_head\.weight \[420, 64\]"):
        load_published(model, REFERENCE / "base")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("hidden = 4096", "hidden = 'wide'", "llama.hidden"),
        ("rank = 128", "rank = 128\nranks = 2", "low_rank.ranks"),
        ("steps = 4112", "step = 4112", "instruct.steps"),
    ],
)
def test_a_wrong_key_is_named(old: str, new: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(VICUNA.read_text().replace(old, new))

    with pytest.raises(TrainingError, match=rf"wrong\.toml is wrong at '{key}'"):
        read_configuration(path)
