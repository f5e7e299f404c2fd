"""MLLM-HWSI's published files, at toy size, become a model that is installed whole, or are refused with the reason."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_hwsi import COLOURS, SYSTEM, Weights, toy_hwsi_manifest, untrained, write_published_hwsi
from safetensors.torch import load_file, save_file

from encoders.expected_shapes import expected_shapes
from model_store.chat_template import qwen_slide_template
from model_store.contracts.hierarchical import Hierarchical
from model_store.convert.convert_model import convert_model
from model_store.errors import ModelError
from model_store.installed import InstalledModel, verify_digests
from model_store.manifest import Manifest, packaged_manifest, parse_manifest
from model_store.manifest_text import manifest_text
from model_store.verify import verify_shapes

NETWORKS = ("vit256", "vit4k", "conch", "cellvit", "cell_fusion", "projector")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Weights]]:
    """The files, and what must become of them."""
    folder = tmp_path_factory.mktemp("published")
    return folder, write_published_hwsi(toy_hwsi_manifest(), folder)


@pytest.fixture
def downloads(tmp_path: Path, written: tuple[Path, dict[str, Weights]]) -> Path:
    return Path(shutil.copytree(written[0], tmp_path / "downloads"))


@cache
def _toy_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    return expected_shapes(toy_hwsi_manifest())


def convert(downloads: Path, manifest: Manifest | None = None, **options: Any) -> tuple[InstalledModel, list[str]]:
    manifest, said = manifest or toy_hwsi_manifest(), []
    model = convert_model(manifest, downloads, downloads.parent / "models", _toy_shapes(), said.append, **options)
    return model, said


def stage_of(model: InstalledModel) -> Hierarchical:
    assert isinstance(model.manifest.slide_stage, Hierarchical)
    return model.manifest.slide_stage


def test_the_model_is_complete_and_holds_the_published_numbers(
    downloads: Path, written: tuple[Path, dict[str, Weights]]
) -> None:
    published = written[1]

    model, said = convert(downloads)

    verify_digests(model)
    assert verify_shapes(model, expected_shapes(model.manifest)) > 100
    for name, file in stage_of(model).weights_files().items():
        served = load_file(model.file(file))
        assert served.keys() == published[name].keys()
        assert all(torch.equal(served[key], published[name][key].float()) for key in served), name
    language_model = load_file(model.llm_folder / "model.safetensors")
    assert all(torch.equal(language_model[key], published["llm"][key]) for key in published["llm"])
    assert "vit256: not served and left out: head.mlp.0.weight" in said
    assert any("vit4k/vit_4096_xs_dino.pth: SHA-256" in line and "recorded" in line for line in said)


def test_what_is_served_is_said_by_its_own_files(downloads: Path) -> None:
    model, _ = convert(downloads)

    config = json.loads((model.llm_folder / "config.json").read_text())
    generation = json.loads((model.llm_folder / "generation_config.json").read_text())
    tokens = {
        it["content"]: it["id"] for it in json.loads((model.llm_folder / "tokenizer.json").read_text())["added_tokens"]
    }
    assert (config["architectures"], config["mm_projector_type"]) == (
        ["SlideQwen2ForConditionalGeneration"],
        "identity",
    )
    assert config["image_token_index"] == tokens["<|image_pad|>"] < config["text_config"]["vocab_size"]
    # The tokenizer's end alone, and nothing of how Qwen would choose tokens.
    assert generation == {"bos_token_id": 1, "eos_token_id": tokens["<|im_end|>"]}
    assert (model.llm_folder / "chat_template.jinja").read_text() == qwen_slide_template(SYSTEM)
    recorded = model.manifest.downloads
    assert recorded is not None
    assert {part: it.digests for part, it in recorded.items()} == dict.fromkeys(recorded, "recorded")
    assert set(recorded["llm"].sha256) >= {
        "model.safetensors",
        "vl_projector.pt",
        "projector_config.json",
        "config.json",
    }


def test_the_normalisation_is_that_of_the_cell_networks_checkpoint(downloads: Path) -> None:
    model, said = convert(downloads)

    assert (list(stage_of(model).cellvit.mean), list(stage_of(model).cellvit.std)) == COLOURS
    assert any(line.startswith("cellvit: its normalisation is") for line in said)


def test_a_trained_projector_raises_no_doubt(downloads: Path) -> None:
    model, _ = convert(downloads)

    assert model.manifest.doubts == ()


def test_a_projector_that_was_never_trained_is_a_doubt_of_the_model(downloads: Path) -> None:
    path = downloads / "llm" / "vl_projector.pt"
    projector = torch.load(path, weights_only=True)["vl_projector_state_dict"]
    torch.save({"vl_projector_state_dict": untrained(projector)}, path)

    model, _ = convert(downloads)

    assert len(model.manifest.doubts) == 1
    assert "was never trained" in model.manifest.doubts[0]
    assert parse_manifest(manifest_text(model.manifest)) == model.manifest


def test_lora_beside_the_weights_is_merged(downloads: Path) -> None:
    llm, rng = downloads / "llm", np.random.default_rng(1)
    name = "model.layers.1.mlp.down_proj"
    before = load_file(llm / "model.safetensors")[f"{name}.weight"]
    a, b = (
        torch.from_numpy(rng.standard_normal(it, np.float32)) for it in ((2, before.shape[1]), (before.shape[0], 2))
    )
    factors = {f"base_model.model.{name}.lora_{side}.weight": it for side, it in (("A", a), ("B", b))}
    save_file(factors, llm / "adapter_model.safetensors")
    (llm / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))

    model, _ = convert(downloads)

    served = load_file(model.llm_folder / "model.safetensors")
    torch.testing.assert_close(served[f"{name}.weight"], before + 2 * b @ a)
    assert model.manifest.downloads is not None
    assert "adapter_model.safetensors" in model.manifest.downloads["llm"].sha256


def json_with(path: str, **changes: Any) -> Callable[[Path], None]:
    def change(downloads: Path) -> None:
        file = downloads / path
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def without(path: str) -> Callable[[Path], None]:
    return lambda downloads: (downloads / path).unlink()


def copied(path: str, name: str) -> Callable[[Path], None]:
    return lambda downloads: (downloads / path).with_name(name).write_bytes((downloads / path).read_bytes())  # type: ignore[return-value]


def another_template(downloads: Path) -> None:
    (downloads / "llm/chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )


def broken_template(downloads: Path) -> None:
    (downloads / "llm/chat_template.jinja").write_text("{% for m in messages %}")


def pickle_that_runs(downloads: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("run",))

    torch.save({"vl_projector_state_dict": Runs()}, downloads / "llm/vl_projector.pt")


def classes(downloads: Path) -> None:
    path = downloads / "cellvit/CellViT-256-x40-AMP.pth"
    with torch.serialization.safe_globals([np.float64, np.dtype, type(np.dtype("float64"))]):
        content = torch.load(path, weights_only=False)
    content["config"]["data.num_nuclei_classes"] = 7
    torch.save(content, path)


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "another width": (json_with("llm/projector_config.json", llm_dim=32), "says llm_dim 32"),
    "fewer queries": (json_with("llm/projector_config.json", num_query_tokens=32), "says num_query_tokens 32"),
    "no layer norms": (json_with("llm/projector_config.json", use_layernorm=False), "wrong at 'use_layernorm'"),
    "a linear projector": (
        json_with("llm/projector_config.json", projector_type="linear"),
        "wrong at 'projector_type'",
    ),
    "no projector": (without("llm/vl_projector.pt"), r"no projector in llm/ \(vl_projector\.pt\)"),
    "no projector config": (without("llm/projector_config.json"), r"llm/projector_config\.json is missing"),
    "no encoder": (without("conch/pytorch_model.bin"), "no weights in conch/"),
    "two encoders": (copied("vit256/vit256_small_dino.pth", "other.pth"), "several files of weights"),
    "a language model of another width": (json_with("llm/config.json", hidden_size=32), "32 wide"),
    "sliding attention": (json_with("llm/config.json", use_sliding_window=True), "wrong at 'use_sliding_window'"),
    "scaled positions": (
        json_with("llm/config.json", rope_parameters={"rope_type": "yarn"}),
        "wrong at 'rope_scaling'",
    ),
    "another family": (json_with("llm/config.json", model_type="llama"), "has no place"),
    "no end": (json_with("llm/tokenizer_config.json", eos_token=None), "no eos_token"),
    "no chat template": (without("llm/chat_template.jinja"), "no chat template"),
    "another chat template": (another_template, "writes a chat in another way"),
    "half a chat template": (broken_template, "cannot be read as a chat template"),
    "other cells": (classes, "says cell_kinds 7"),
    "code in a pickle": (pickle_that_runs, "holds more than tensors"),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_what_does_not_fit_is_named_and_nothing_is_installed(fault: str, downloads: Path) -> None:
    spoil, sentence = SPOILED[fault]
    spoil(downloads)

    with pytest.raises(ModelError, match=sentence):
        convert(downloads)

    assert not (downloads.parent / "models" / "toy-hwsi").exists()


def test_another_file_under_the_same_name_is_refused_from_then_on(downloads: Path) -> None:
    convert(downloads)
    write = torch.load(downloads / "conch/pytorch_model.bin", weights_only=True)
    write["logit_scale"] += 1
    torch.save(write, downloads / "conch/pytorch_model.bin")

    with pytest.raises(ModelError, match=r"conch/pytorch_model\.bin is not the file that was converted first"):
        convert(downloads)


def test_it_can_be_served_in_8_bits(downloads: Path) -> None:
    manifest = toy_hwsi_manifest()
    manifest = manifest.model_copy(update={"llm": manifest.llm.model_copy(update={"dtype": "float16"})})

    model, _ = convert(downloads, manifest, quantize="fp8")

    assert verify_shapes(model, expected_shapes(model.manifest)) > 100
    with pytest.raises(ModelError, match="16 bits or fp8"):
        convert(downloads, manifest, quantize="awq")


def test_the_published_one_has_the_published_names_and_sizes() -> None:
    manifest = packaged_manifest("mllm-hwsi")
    stage = manifest.slide_stage
    assert isinstance(stage, Hierarchical)
    shapes = expected_shapes(manifest)
    counted = {name: len(shapes[stage.weights_files()[name]]) for name in NETWORKS}

    # CellViT's are 439 with the counters of its batch norms, CONCH's and DINOv2's those of the parts that are read.
    assert {name: counted[name] for name in ("vit256", "vit4k", "conch", "projector")} == {
        "vit256": 150,
        "vit4k": 78,
        "conch": 164,
        "projector": 45,
    }
    generation = manifest.llm.generation
    assert (generation.temperature, generation.generated_repetition_penalty, generation.no_repeat_ngram_size) == (
        0,
        1.15,
        3,
    )
    assert (generation.top_k, manifest.row_width, manifest.most_rows) == (20, 3584, 64)
