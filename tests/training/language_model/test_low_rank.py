"""LoRA on the language model: what is trained, and what is folded in."""

from pathlib import Path

import pytest
import torch
from toy_language_model import TOY_LOW_RANK, OneBatch, toy_batch, toy_language_model
from training_tasks import settings

from training.language_model.low_rank import low_rank_of, merged_weights
from training.language_model.slide_language_model import SlideLanguageModel
from training.loop.checkpoint import load_trained
from training.loop.run_stage import run_stage


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SlideLanguageModel, Path]:
    model, folder = toy_language_model(TOY_LOW_RANK), tmp_path_factory.mktemp("trained")
    run_stage(model, OneBatch(toy_batch()), settings(), folder)
    return model.eval(), folder


def test_added_pairs_change_nothing_yet() -> None:
    plain, added = toy_language_model(), toy_language_model(TOY_LOW_RANK).eval()

    assert torch.equal(plain(toy_batch())["answers"], added(toy_batch())["answers"])


def test_pairs_stand_beside_every_linear_layer_of_the_decoder_and_nowhere_else() -> None:
    model = toy_language_model(TOY_LOW_RANK)

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    projector = {name for name in trained if name.startswith("mm_projector.")}
    assert len(projector) == 4
    assert len(trained - projector) == 2 * 7 * 2  # layers, linear layers, A and B
    assert all(".layers." in name and ".lora_" in name for name in trained - projector)


def test_pairs_beside_half_precision_weights_are_full() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = toy_language_model(TOY_LOW_RANK)
    finally:
        torch.set_default_dtype(torch.float32)

    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad} == {torch.bfloat16}


def test_training_moves_pairs_and_projector_and_leaves_the_rest(trained: tuple[SlideLanguageModel, Path]) -> None:
    before = dict(toy_language_model(TOY_LOW_RANK).named_parameters())
    model, _ = trained

    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    assert model(toy_batch())["answers"] < toy_language_model()(toy_batch())["answers"]


def test_merged_weights_answer_as_the_model_with_its_pairs(trained: tuple[SlideLanguageModel, Path]) -> None:
    model, _ = trained
    merged = toy_language_model()
    merged.llama.load_state_dict(dict(merged_weights(model)))
    merged.mm_projector.load_state_dict(model.mm_projector.state_dict())

    torch.testing.assert_close(merged(toy_batch())["answers"], model(toy_batch())["answers"])


def test_the_stage_keeps_the_pairs_alone(trained: tuple[SlideLanguageModel, Path]) -> None:
    model, folder = trained
    again = toy_language_model(TOY_LOW_RANK).eval()

    load_trained(again, folder)

    assert torch.equal(again(toy_batch())["answers"], model(toy_batch())["answers"])
    sizes = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    assert (folder / "weights.safetensors").stat().st_size < sizes + 20_000


def test_what_was_added_can_be_asked_for() -> None:
    assert low_rank_of(toy_language_model(TOY_LOW_RANK)) == TOY_LOW_RANK
    assert low_rank_of(toy_language_model()) is None
