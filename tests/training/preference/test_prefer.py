"""The stage in the loop of all others: what it learns and leaves alone, and that a killed run ends in the same bits."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_language_model import TOY_LOW_RANK, toy_language_model
from toy_preference import PAIRS, packaged_tokenizer, toy_pairs, toy_slides, toy_task
from training_tasks import Interrupted, settings

from training.errors import SettingsChanged, TrainingError
from training.language_model.configuration import CONFIGURATIONS, new_language_model, read_configuration
from training.language_model.low_rank import LowRank
from training.loop.run_stage import run_stage
from training.preference.dpo_loss import PreferenceSettings
from training.preference.pairs import PreferencePair, user
from training.preference.prefer import PairData, SlideRows, prefer, slide_rows
from training.preference.reference import reference_log_probabilities
from training.preference.task import PreferenceTask
from training.preference.tokenized_pairs import stacked_pairs


def plain_log_probabilities(model: nn.Module, row: int, *, chosen: bool) -> float:
    """Of one pair's answer, alone and unpadded, from a softmax over all logits."""
    pair, (tokens, rows) = toy_pairs()[row], toy_slides()
    answer = pair.chosen if chosen else pair.rejected
    ids = torch.tensor([[*pair.prompt, *answer]])
    with torch.no_grad():
        states = model.states(ids, tokens[rows[row]][None].float())  # type: ignore[operator]
        logs = model.logits(states[-1]).log_softmax(dim=-1)  # type: ignore[operator]
    places = range(len(pair.prompt), ids.shape[1])
    return sum(float(logs[0, place - 1, ids[0, place]]) for place in places)


class InterruptedTask:
    """Ends at batch 7, behind the checkpoint of step 5."""

    def __init__(self, task: PreferenceTask) -> None:
        self._task = task

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        if step == 7:
            raise Interrupted
        return self._task.batch(step, rank, ranks)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self._task.loss(model, batch)


def metrics(task: PreferenceTask, model: nn.Module, step: int) -> Mapping[str, Tensor]:
    with torch.no_grad():
        return task.loss(model, task.batch(step, 0, 1))


def test_log_probabilities_are_those_of_each_answer_alone(tmp_path: Path) -> None:
    model = toy_language_model().eval()

    found = reference_log_probabilities(model, toy_pairs(), *toy_slides(), tmp_path, "fp32")

    for row in range(PAIRS):
        assert float(found[row, 0]) == pytest.approx(plain_log_probabilities(model, row, chosen=True), abs=1e-4)
        assert float(found[row, 1]) == pytest.approx(plain_log_probabilities(model, row, chosen=False), abs=1e-4)


def test_the_reference_is_computed_once_and_never_taken_for_another_model(tmp_path: Path) -> None:
    model = toy_language_model()
    first = reference_log_probabilities(model, toy_pairs(), *toy_slides(), tmp_path, "fp32")
    (kept,) = tmp_path.glob("reference-*.safetensors")

    class NeverAsked(nn.Module):
        def forward(self, batch: object) -> object:
            raise AssertionError("it is read from its file")

        def state_dict(self, *args: object, **more: object) -> dict[str, Tensor]:  # type: ignore[override]
            return model.state_dict()

    again = reference_log_probabilities(NeverAsked(), toy_pairs(), *toy_slides(), tmp_path, "fp32")
    with torch.no_grad():
        model.llama.lm_head.weight.mul_(1.5)
    other = reference_log_probabilities(model, toy_pairs(), *toy_slides(), tmp_path, "fp32")

    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert len(list(tmp_path.glob("reference-*.safetensors"))) == 2
    assert kept.is_file()


@pytest.mark.parametrize("low_rank", [None, replace(TOY_LOW_RANK, dropout=0.0)], ids=["full", "lora"])
def test_it_begins_at_log_2_and_learns_the_preferences(low_rank: LowRank | None, tmp_path: Path) -> None:
    model = toy_language_model(low_rank)
    task = toy_task(model, tmp_path)
    before = metrics(task, model, 0)

    run_stage(model, task, replace(settings(), steps=30, learning_rate=1e-2), tmp_path)

    after = metrics(task, model, 0)
    assert float(before["preference"]) == pytest.approx(math.log(2), abs=1e-4)
    assert float(before["margin"]) == pytest.approx(0, abs=1e-4)
    assert float(after["preference"]) < 0.5
    assert float(after["accuracy"]) == 1.0
    assert float(after["supervised"]) < float(before["supervised"])


def test_of_a_model_with_lora_only_the_pairs_and_the_projector_change(tmp_path: Path) -> None:
    model = toy_language_model(TOY_LOW_RANK)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    run_stage(model, toy_task(model, tmp_path), settings(), tmp_path)

    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(".lora_" in name or name.startswith("mm_projector.") for name in changed)


def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    undisturbed, resumed = toy_language_model(TOY_LOW_RANK), toy_language_model(TOY_LOW_RANK)
    run_stage(undisturbed, toy_task(undisturbed, tmp_path), settings(), tmp_path / "undisturbed")

    with pytest.raises(Interrupted):
        run_stage(resumed, InterruptedTask(toy_task(resumed, tmp_path)), settings(), tmp_path / "resumed")
    again = toy_language_model(TOY_LOW_RANK)
    run_stage(again, toy_task(again, tmp_path), settings(), tmp_path / "resumed")

    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("undisturbed", "resumed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_control_learns_the_same_answers_and_reads_no_rejected_one(tmp_path: Path) -> None:
    model = toy_language_model()
    control = toy_task(model, tmp_path, PreferenceSettings(weight=0.0, supervised=1.0))
    weighed = toy_task(model, tmp_path, PreferenceSettings(weight=1.0, supervised=1.0))

    found, beside = metrics(control, model, 0), metrics(weighed, model, 0)

    assert found.keys() == {"loss", "ordinary", "supervised"}
    assert float(found["loss"]) == pytest.approx(float(found["ordinary"] + found["supervised"]))
    assert float(found["supervised"]) == pytest.approx(float(beside["supervised"]), abs=1e-5)
    assert 2 * len(control.batch(0, 0, 1)["ids"]) == len(weighed.batch(0, 0, 1)["ids"])


def test_at_least_half_of_a_step_is_the_ordinary_task(tmp_path: Path) -> None:
    from training.demo_recipe import DEMO

    assert DEMO.prefer_tokens <= DEMO.step_tokens
    batch = toy_task(toy_language_model(), tmp_path).batch(0, 0, 1)
    assert "ordinary.weights" in batch
    assert batch["ids"].numel() <= 2 * 200


def test_vicunas_configuration_takes_steps_at_toy_depth(tmp_path: Path) -> None:
    configuration = read_configuration(CONFIGURATIONS / "vicuna-7b.toml")
    shape = replace(configuration.llama, vocabulary=30, hidden=64, layers=1, heads=2, intermediate=96)
    model = new_language_model(configuration.model_copy(update={"llama": shape, "projector_width": 24}))
    base = model.llama.model.layers[0].mlp.up_proj.base_layer.weight.clone()
    stage = replace(configuration.instruct, stage="prefer", steps=2, accumulate=1, prefetch_workers=0)

    run_stage(model, toy_task(model, tmp_path), stage, tmp_path)

    layer = model.llama.model.layers[0].mlp.up_proj
    assert layer.lora_B["default"].weight.abs().sum() > 0
    assert torch.equal(layer.base_layer.weight, base)


def of_pairs(*pairs: PreferencePair) -> PairData:
    rows = SlideRows(torch.zeros(1, 3, 24).half(), [0] * len(pairs))
    return PairData(pairs, rows, packaged_tokenizer(), "<s>")


def test_a_folder_of_other_pairs_is_refused(tmp_path: Path) -> None:
    from training.preference.prefer import require_same_preference

    one = PreferencePair(messages=(user("One?"),), slide="a", chosen="Yes", rejected="No", origin="x")
    require_same_preference(tmp_path, of_pairs(one), PreferenceSettings(), 100)
    require_same_preference(tmp_path, of_pairs(one), PreferenceSettings(), 100)

    with pytest.raises(SettingsChanged, match="another pairs:"):
        require_same_preference(tmp_path, of_pairs(one, one), PreferenceSettings(), 100)
    with pytest.raises(SettingsChanged, match="another beta:"):
        require_same_preference(tmp_path, of_pairs(one), PreferenceSettings(beta=0.2), 100)


def test_a_pair_that_the_model_cannot_read_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    model = toy_language_model()
    model.llama.config.max_position_embeddings = 8
    pair = PreferencePair(messages=(user("Is there a tumour?"),), slide="a", chosen="Yes", rejected="No", origin="x")

    with pytest.raises(TrainingError, match="at most 8"):
        prefer(
            model,
            toy_task(model, tmp_path / "task"),
            of_pairs(pair),
            settings(),
            PreferenceSettings(),
            tmp_path / "stage",
            step_tokens=100,
        )


def test_embeddings_of_two_models_are_refused_and_each_slide_stands_once() -> None:
    one, two = (
        PreferencePair(messages=(user("?"),), slide="a", region=region, chosen="Yes", rejected="No", origin="x")
        for region in (None, "r")
    )
    shapes = {"a": torch.zeros(3, 24), "r": torch.ones(3, 24)}

    rows = slide_rows([one, two, one], shapes.__getitem__)

    assert rows.of_pair == [0, 1, 0]
    assert rows.tokens.shape == (2, 3, 24)
    with pytest.raises(TrainingError, match="two models"):
        slide_rows([one, two], {**shapes, "r": torch.ones(2, 24)}.__getitem__)


def test_stacked_pairs_mark_the_answers_alone() -> None:
    batch = stacked_pairs(toy_pairs()[:3])

    for row, pair in enumerate(toy_pairs()[:3]):
        assert batch["ids"][row][batch["said"][row]].tolist() == list(pair.chosen)
        assert batch["ids"][3 + row][batch["said"][3 + row]].tolist() == list(pair.rejected)
