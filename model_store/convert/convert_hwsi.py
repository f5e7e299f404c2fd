"""MLLM-HWSI's published files → the six networks of a hierarchical slide stage, and the folder that vLLM serves.

Strict, where the public code loads what fits and says nothing. The projector belongs to the slide stage: its rows are
cached, and vLLM gets a plain Qwen2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from model_store.contracts.hierarchical import HIERARCHICAL_NETWORKS, Hierarchical
from model_store.contracts.prompt import ChatmlPrompt
from model_store.convert.convert_cellvit import convert_cellvit, read_cellvit_settings
from model_store.convert.convert_hierarchy import (
    convert_conch,
    convert_dinov2_blocks,
    convert_hipt,
    convert_projector,
)
from model_store.convert.convert_llm import write_llm_shards
from model_store.convert.convert_weights import Merge, Shard, Target, plan_conversion
from model_store.convert.float8_weights import float8_config
from model_store.convert.hwsi_checkpoint import HwsiCheckpoint, check_chat_template, check_projector_config
from model_store.convert.llava_config import matrices_of, read_served_config, served_shapes
from model_store.convert.merge_lora import read_adapter
from model_store.convert.tensor_names import QWEN2
from model_store.convert.write_tokenizer import added_token_id, copy_tokenizer
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_json, read_shard
from model_store.files.serving_files import write_serving_files
from model_store.files.write_safetensors import Shape
from model_store.manifest import Manifest

# The networks that are a published file each; the projector comes with the language model.
ENCODERS: Final = tuple(name for name in HIERARCHICAL_NETWORKS if name != "projector")
_PART: Final = "language model"


@dataclass(frozen=True)
class ConvertedLevels:
    """What converting the networks found out: names that were left out by network, doubts to be told with answers, and
    the stage with CellViT's normalisation as its checkpoint says it."""

    dropped: Mapping[str, Sequence[str]]
    doubts: Sequence[str]
    stage: Hierarchical


def convert_levels(
    files: Mapping[str, Path],
    stage: Hierarchical,
    shapes: Mapping[str, Mapping[str, Shape]],
    folder: Path,
) -> ConvertedLevels:
    """Writes the six networks where the stage says, in fp32; `files` are theirs by the network's name, published.

    Raises ModelError that names the file, setting or tensor at fault.
    """
    stage = _with_colours_of(files["cellvit"], stage)
    found: dict[str, Sequence[str]] = {}
    for name in HIERARCHICAL_NETWORKS:
        weights = stage.weights_files()[name]
        (folder / weights).parent.mkdir(parents=True, exist_ok=True)
        found[name] = _CONVERTERS[name](files[name], shapes[weights], folder / weights)
    return ConvertedLevels({name: found[name] for name in ENCODERS}, found["projector"], stage)


def convert_hwsi_llm(checkpoint: HwsiCheckpoint, manifest: Manifest, folder: Path) -> Sequence[str]:
    """Fills `folder`, which exists and is empty, with the language model; returns the names that it left out.

    Raises ModelError that names the tensor, setting or file at fault.
    """
    assert isinstance(manifest.prompt, ChatmlPrompt)
    assert isinstance(manifest.slide_stage, Hierarchical)
    check_projector_config(checkpoint.folder, manifest.slide_stage.projector)
    check_chat_template(checkpoint.folder, manifest.prompt.system)
    config = read_served_config(checkpoint.folder / "config.json", manifest)
    if config.hidden_size != manifest.row_width:
        raise ModelError(
            f"The language model is {config.hidden_size} wide, the projector's rows {manifest.row_width}: they are not "
            "of one checkpoint."
        )
    shapes = served_shapes(config)
    float8 = matrices_of(shapes) if manifest.llm.quantization == "fp8" else frozenset()
    target = Target(_PART, QWEN2, shapes, manifest.llm.dtype, float8=float8)
    plan = plan_conversion([Shard(path.name, partial(read_shard, path)) for path in checkpoint.shards], target)
    image_token_id = copy_tokenizer(checkpoint.folder, folder, manifest.prompt.placeholder)
    # The public code stops at the tokenizer's end alone.
    ends = config.model_copy(update={"eos_token_id": _token_id(folder, "eos_token")})
    write_serving_files(folder, ends, manifest, image_token_id, float8_config() if float8 else None)
    write_llm_shards(plan, target, folder, _merge_of(checkpoint, shapes))
    return plan.dropped


def _fp32(convert: Callable[..., Sequence[str]]) -> Callable[[Path, Mapping[str, Shape], Path], Sequence[str]]:
    return lambda file, expected, path: convert(file, expected, "float32", path)


_CONVERTERS: Final[Mapping[str, Callable[[Path, Mapping[str, Shape], Path], Sequence[str]]]] = {
    "vit256": _fp32(convert_hipt),
    "vit4k": _fp32(convert_hipt),
    "conch": _fp32(convert_conch),
    "cellvit": convert_cellvit,
    "cell_fusion": _fp32(convert_dinov2_blocks),
    "projector": convert_projector,
}


def _with_colours_of(file: Path, stage: Hierarchical) -> Hierarchical:
    """The stage with the normalisation that CellViT's checkpoint says; raises ModelError where its classes differ."""
    said = read_cellvit_settings(file)
    for name in ("cell_kinds", "tissue_kinds"):
        found, wanted = getattr(said, name), getattr(stage.cellvit, name)
        if found != wanted:
            raise ModelError(
                f"{file.name} says {name} {found}, the manifest's slide_stage.cellvit {wanted}: use the manifest of "
                "this checkpoint."
            )
    cellvit = stage.cellvit.model_copy(update={"mean": said.mean, "std": said.std})
    return stage.model_copy(update={"cellvit": cellvit})


def _token_id(folder: Path, name: str) -> int:
    said = read_json(folder / "tokenizer_config.json").get(name)
    token = said.get("content") if isinstance(said, Mapping) else said
    if not isinstance(token, str):
        raise ModelError(f"tokenizer_config.json has no {name}, where an answer would end; get the file again.")
    return added_token_id(folder, token, "which ends an answer")


def _merge_of(checkpoint: HwsiCheckpoint, shapes: Mapping[str, Shape]) -> Merge | None:
    if checkpoint.adapter is None:
        return None
    adapter = read_adapter(checkpoint.adapter, QWEN2)
    for name in sorted(adapter.factors.keys() - shapes.keys()):
        raise ModelError(f"The adapter changes {name!r}, which the {_PART} does not have; it is another model's.")
    return adapter.merge
