"""Checkpoints that LLaVA's own training code made get the weights that its own loader gives them."""

from pathlib import Path

import pytest
import torch
from reference_checkpoints import BASES, REFERENCE, convert_reference, recorded_answers
from safetensors.torch import load_file
from toy_checkpoint import toy_manifest

from model_store.installed import InstalledModel, verify_digests

PROJECTOR = "mm_projector."


def pickled(path: str) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = torch.load(REFERENCE / path, weights_only=True)
    return {name: tensor.float() for name, tensor in tensors.items() if "vision_tower" not in name}


def served(model: InstalledModel) -> dict[str, torch.Tensor]:
    files = model.llm_folder.glob("*.safetensors")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def convert(layout: str, folder: Path) -> InstalledModel:
    return convert_reference(layout, toy_manifest(), folder / "downloads", folder / "models")


def assert_equal(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


def test_a_merged_checkpoint_keeps_every_weight_but_the_vision_tower(tmp_path: Path) -> None:
    model = convert("merged", tmp_path)

    assert_equal(served(model), pickled("merged/pytorch_model.bin"))
    verify_digests(model)


def test_a_projector_joins_its_base(tmp_path: Path) -> None:
    model = convert("projector", tmp_path)

    assert_equal(served(model), pickled("base/pytorch_model.bin") | pickled("projector/mm_projector.bin"))
    verify_digests(model)


def test_an_adapter_is_merged_as_the_reference_merges_it(tmp_path: Path) -> None:
    model = convert("lora", tmp_path)

    tensors, base = served(model), pickled("merged/pytorch_model.bin")
    merged = load_file(REFERENCE / "lora_merged_by_reference.safetensors")
    for name, tensor in merged.items():
        assert not torch.allclose(tensor, base[name], rtol=0, atol=1e-2), "the adapter does nothing"
        torch.testing.assert_close(tensors.pop(name), tensor, rtol=0, atol=1e-6)
    trained = pickled("lora/non_lora_trainables.bin")
    projector = {name.removeprefix("base_model.model."): tensor for name, tensor in trained.items()}
    unchanged = {name: base[name] for name in base.keys() - merged.keys() if PROJECTOR not in name}
    assert_equal(tensors, unchanged | projector)
    verify_digests(model)


def test_merged_or_not_they_differ_in_weights_alone(tmp_path: Path) -> None:
    """What vLLM is given beside them is the same, so that one of the two need be served."""
    merged, lora = (convert(layout, tmp_path / layout).llm_folder for layout in ("merged", "lora"))

    beside = {file.name: file.read_bytes() for file in merged.iterdir() if "model.safetensors" not in file.name}
    assert {"config.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"} <= beside.keys()
    assert beside == {name: (lora / name).read_bytes() for name in beside}


@pytest.mark.parametrize("layout", BASES)
def test_the_recorded_answers_tell_slides_questions_and_layouts_apart(layout: str) -> None:
    answers = recorded_answers(layout)

    assert len({tuple(answer.token_ids) for answer in answers}) == len(answers) == 6
    if layout == "lora":
        base = recorded_answers("merged")
        assert all(mine.token_ids != its.token_ids for mine, its in zip(answers, base, strict=True))
