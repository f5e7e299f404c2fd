"""A LLaVA checkpoint in any of its three layouts → the folder that vLLM serves."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from model_store.convert.convert_weights import Merge, Plan, Shard, Target, plan_conversion, write_planned
from model_store.convert.llava_checkpoint import LlavaCheckpoint
from model_store.convert.llava_config import llava_shapes, read_llava_config
from model_store.convert.merge_lora import read_adapter
from model_store.convert.tensor_names import LLAVA
from model_store.convert.write_tokenizer import write_tokenizer
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_shard
from model_store.files.serving_files import write_json, write_serving_files
from model_store.manifest import Manifest


def convert_llm(checkpoint: LlavaCheckpoint, manifest: Manifest, folder: Path) -> Sequence[str]:
    """Fills `folder`, which exists and is empty; returns the names of the tensors that it left out.

    Raises ModelError that names the tensor or file that is wrong.
    """
    config = read_llava_config(checkpoint.folder / "config.json", manifest.llm.projector_width)
    target = Target("language model", LLAVA, llava_shapes(config), manifest.llm.dtype)
    shards = [_shard(path) for path in checkpoint.shards]
    plan = plan_conversion(shards, target, _shard(checkpoint.overlay) if checkpoint.overlay else None)
    merge = _merge_of(checkpoint, target)
    image_token_id = write_tokenizer(checkpoint.base, folder, manifest.llm.placeholder, config.vocab_size)
    write_serving_files(folder, config, manifest, image_token_id)
    _write_shards(plan, target, folder, merge)
    return plan.dropped


def _shard(path: Path) -> Shard:
    return Shard(path.name, partial(read_shard, path))


def _merge_of(checkpoint: LlavaCheckpoint, target: Target) -> Merge | None:
    if checkpoint.layout != "lora":
        return None
    adapter = read_adapter(checkpoint.folder, target.names)
    for name in sorted(adapter.factors.keys() - target.expected.keys()):
        raise ModelError(f"The adapter changes {name!r}, which the {target.part} does not have; it is another model's.")
    return adapter.merge


def _write_shards(plan: Plan, target: Target, folder: Path, merge: Merge | None) -> None:
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
        weight_map |= dict.fromkeys(shard.published_names, file)
    index = {"metadata": {"total_size": data_bytes}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)
