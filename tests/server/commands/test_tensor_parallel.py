"""A language model over several devices: refused where it cannot be split; on a CPU each part gets its own cores."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import ModelError
from model_store.installed import InstalledModel
from model_store.manifest import packaged_manifest
from server.commands import tensor_parallel
from server.commands.outcome import CommandError
from server.commands.tensor_parallel import cpu_binding, refuse_size

VICUNA = {"num_attention_heads": 32, "num_key_value_heads": 32, "hidden_size": 4096, "intermediate_size": 11008}


def served(tmp_path: Path, quantization: dict[str, Any] | None = None, **numbers: int) -> InstalledModel:
    config = {"text_config": {**VICUNA, **numbers}, **({"quantization_config": quantization} if quantization else {})}
    (tmp_path / "llm").mkdir(exist_ok=True)
    (tmp_path / "llm" / "config.json").write_text(json.dumps(config))
    return InstalledModel(tmp_path, packaged_manifest("wsi-llava"), {})


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32])
def test_what_divides_the_heads_is_taken(tmp_path: Path, size: int) -> None:
    refuse_size(served(tmp_path), size, "cpu")


def test_what_does_not_is_refused_with_what_would(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"TENSOR_PARALLEL_SIZE is 3.*32 attention heads.*1, 2, 4, 8, 16, 32"):
        refuse_size(served(tmp_path), 3, "cpu")


def test_shared_heads_and_inner_columns_must_divide_too(tmp_path: Path) -> None:
    refuse_size(served(tmp_path, num_key_value_heads=2), 8, "cpu")
    with pytest.raises(CommandError, match="6 key and value heads"):
        refuse_size(served(tmp_path, num_key_value_heads=6), 4, "cpu")
    with pytest.raises(CommandError, match="11010 inner columns"):
        refuse_size(served(tmp_path, intermediate_size=11010), 4, "cpu")


def test_a_split_through_quantised_groups_is_refused(tmp_path: Path) -> None:
    groups = {"quant_method": "awq", "group_size": 128}
    refuse_size(served(tmp_path, groups), 2, "cpu")
    refuse_size(served(tmp_path, {"quant_method": "compressed-tensors"}), 4, "cpu")
    with pytest.raises(CommandError, match="cuts through this model's quantised groups of 128"):
        refuse_size(served(tmp_path, groups), 4, "cpu")


def test_more_parts_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_parallel, "visible_gpus", lambda: ("one", "two"))
    refuse_size(served(tmp_path), 2, "cuda")
    with pytest.raises(CommandError, match="vLLM can use 2 GPUs here"):
        refuse_size(served(tmp_path), 4, "cuda")
    refuse_size(served(tmp_path), 4, "cpu")


def test_a_model_without_a_config_is_named(tmp_path: Path) -> None:
    model = served(tmp_path)
    (model.llm_folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"llm/config\.json cannot be read"):
        refuse_size(model, 2, "cpu")


def test_each_part_gets_its_own_cpus() -> None:
    bind = "VLLM_CPU_OMP_THREADS_BIND"
    assert cpu_binding(1, [0, 1], {}) == {}
    assert cpu_binding(2, [0, 1], {}) == {bind: "0|1"}
    assert cpu_binding(2, [9, 3, 4, 8, 12], {}) == {bind: "3,4|8,9"}
    assert cpu_binding(4, [0, 1], {}) == {bind: "nobind", "OMP_NUM_THREADS": "1"}
    assert cpu_binding(2, [0, 1, 2, 3], {bind: "0-1|2-3"}) == {}
