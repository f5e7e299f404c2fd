"""A LLaVA checkpoint in any of its three layouts → the folder that vLLM serves, quantised or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from torch import Tensor

from model_store.convert.convert_weights import Merge, Plan, Shard, Target, plan_conversion, write_planned
from model_store.convert.float8_weights import float8_config
from model_store.convert.llava_checkpoint import LlavaCheckpoint
from model_store.convert.llava_config import (
    LlavaConfig,
    matrices_of,
    packed_shapes,
    read_llava_config,
    refuse_another_llama,
    served_shapes,
)
from model_store.convert.merge_lora import read_adapter
from model_store.convert.packed_model import PackedModel, check_origin, find_tensor
from model_store.convert.packed_weights import INTEGERS, read_packed_shard
from model_store.convert.tensor_names import LLAVA
from model_store.convert.write_tokenizer import write_tokenizer
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_shard
from model_store.files.serving_files import write_json, write_serving_files
from model_store.files.source_digests import Say
from model_store.files.write_safetensors import Shape
from model_store.manifest import Manifest

_PROJECTOR: Final = "model.mm_projector."
_PART: Final = "language model"


@dataclass(frozen=True)
class LlmSources:
    """What a served folder is made of; `base` holds what the checkpoint was fine-tuned from, where that is there."""

    checkpoint: LlavaCheckpoint
    base: Sequence[Path] = ()
    packed: PackedModel | None = None


def convert_llm(sources: LlmSources, manifest: Manifest, folder: Path, say: Say) -> Sequence[str]:
    """Fills `folder`, which exists and is empty; returns the names of the tensors that it left out.

    Raises ModelError that names the tensor or file that is wrong.
    """
    checkpoint = sources.checkpoint
    config = read_llava_config(checkpoint.folder / "config.json", manifest.projector_width)
    shapes = served_shapes(config)
    merge = _merge_of(checkpoint, shapes)
    if sources.packed is None:
        float8 = matrices_of(shapes) if manifest.llm.quantization == "fp8" else frozenset()
        target = Target(_PART, LLAVA, shapes, manifest.llm.dtype, float8=float8)
        shards = [_shard(path) for path in checkpoint.shards]
        quantization = float8_config() if float8 else None
    else:
        if sources.packed.apart:
            _refuse_another_origin(sources, config, merge, say)
            merge = None
        expected = packed_shapes(shapes, sources.packed.form)
        integers = frozenset(name for name in expected if name.rpartition(".")[2] in INTEGERS)
        target = Target(_PART, LLAVA, expected, manifest.llm.dtype, packed=integers)
        shards = _packed_shards(checkpoint, sources.packed)
        quantization = sources.packed.form.served_config()
    plan = plan_conversion(shards, target, _shard(checkpoint.overlay) if checkpoint.overlay else None)
    image_token_id = write_tokenizer(checkpoint.base, folder, manifest.prompt.placeholder, config.vocab_size)
    write_serving_files(folder, config, manifest, image_token_id, quantization)
    write_llm_shards(plan, target, folder, merge)
    return plan.dropped


def _shard(path: Path) -> Shard:
    return Shard(path.name, partial(read_shard, path))


def _packed_shards(checkpoint: LlavaCheckpoint, packed: PackedModel) -> list[Shard]:
    """The quantised language model, and the checkpoint's projector where that is not an overlay."""

    def language_model(path: Path) -> dict[str, Tensor]:
        tensors = read_packed_shard(path, packed.form)
        return {name: tensor for name, tensor in tensors.items() if not (packed.apart and _is_projector(name))}

    def projector(path: Path) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in read_shard(path).items() if _is_projector(name)}

    shards = [Shard(path.name, partial(language_model, path)) for path in packed.shards]
    if packed.apart and checkpoint.overlay is None:
        shards += [Shard(f"{path.parent.name}/{path.name}", partial(projector, path)) for path in checkpoint.shards]
    return shards


def _is_projector(published: str) -> bool:
    return (LLAVA.served_name(published) or "").startswith(_PROJECTOR)


def _refuse_another_origin(sources: LlmSources, config: LlavaConfig, merge: Merge | None, say: Say) -> None:
    packed, checkpoint = sources.packed, sources.checkpoint
    assert packed is not None
    refuse_another_llama(packed.folder, config)
    unmerged = find_tensor(checkpoint.shards, read_shard)

    def weight(name: str) -> Tensor | None:
        tensor = unmerged(name)
        return tensor if merge is None or tensor is None else merge(name, tensor)

    base = find_tensor(sources.base, read_shard)
    check_origin(packed, config.num_hidden_layers, weight, base, say)


def _merge_of(checkpoint: LlavaCheckpoint, shapes: Mapping[str, Shape]) -> Merge | None:
    if checkpoint.layout != "lora":
        return None
    adapter = read_adapter(checkpoint.folder, LLAVA)
    for name in sorted(adapter.factors.keys() - shapes.keys()):
        raise ModelError(f"The adapter changes {name!r}, which the {_PART} does not have; it is another model's.")
    return adapter.merge


def write_llm_shards(plan: Plan, target: Target, folder: Path, merge: Merge | None) -> None:
    """One file for each published one, so that the work needs no more memory than the largest; then their index."""
    count = len(plan.shards)
    if count == 1:
        write_planned(folder / "model.safetensors", plan.shards, target, merge)
        return
    weight_map: dict[str, str] = {}
    data_bytes = 0
    for number, shard in enumerate(plan.shards, start=1):
        file = f"model-{number:05}-of-{count:05}.safetensors"
        data_bytes += write_planned(folder / file, [shard], target, merge)
        weight_map |= dict.fromkeys((entry.name for entry in shard.entries), file)
    index = {"metadata": {"total_size": data_bytes}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)
