"""SlideChat's checkpoint → LongNet's weights, and the folder that vLLM serves. What is left over is an error."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from model_store.convert.convert_llm import write_llm_shards
from model_store.convert.convert_weights import Merge, Target, plan_conversion, write_planned
from model_store.convert.float8_weights import float8_config
from model_store.convert.llava_config import matrices_of, read_served_config, served_shapes
from model_store.convert.merge_lora import read_adapter
from model_store.convert.tensor_names import LLAVA, SLIDECHAT_LLM, SLIDECHAT_LONGNET
from model_store.convert.write_tokenizer import copy_tokenizer
from model_store.convert.xtuner_checkpoint import XtunerCheckpoint
from model_store.errors import ModelError
from model_store.files.serving_files import write_serving_files
from model_store.files.write_safetensors import Shape
from model_store.manifest import Manifest

_PART: Final = "language model"
_OTHER_PART: Final = "LongNet_encoder."


def convert_slidechat_longnet(checkpoint: XtunerCheckpoint, expected: Mapping[str, Shape], path: Path) -> None:
    """Writes LongNet to `path` in fp32: its norms are computed in it. Raises ModelError that names the tensor."""
    target = Target("slide encoder", SLIDECHAT_LONGNET, expected, "float32")
    plan = plan_conversion([file.shard() for file in checkpoint.weights], target)
    write_planned(path, plan.shards, target)


def convert_slidechat_llm(checkpoint: XtunerCheckpoint, manifest: Manifest, folder: Path) -> Sequence[str]:
    """Fills `folder`, which exists and is empty, with language model and projector; returns what it left out.

    Raises ModelError that names the tensor or file that is wrong.
    """
    config = read_served_config(checkpoint.settings / "config.json", manifest)
    shapes = served_shapes(config)
    float8 = matrices_of(shapes) if manifest.llm.quantization == "fp8" else frozenset()
    target = Target(_PART, SLIDECHAT_LLM, shapes, manifest.llm.dtype, float8=float8)
    merge = _merge_of(checkpoint, shapes)
    plan = plan_conversion([file.shard() for file in (*checkpoint.base, *checkpoint.weights)], target)
    image_token_id = copy_tokenizer(checkpoint.settings, folder, manifest.prompt.placeholder)
    write_serving_files(folder, config, manifest, image_token_id, float8_config() if float8 else None)
    write_llm_shards(plan, target, folder, merge)
    return [name for name in plan.dropped if _OTHER_PART not in name]


def _merge_of(checkpoint: XtunerCheckpoint, shapes: Mapping[str, Shape]) -> Merge | None:
    if checkpoint.adapter is None:
        return None
    adapter = read_adapter(checkpoint.adapter, LLAVA)
    for name in sorted(adapter.factors.keys() - shapes.keys()):
        raise ModelError(f"The adapter changes {name!r}, which the {_PART} does not have; it is another model's.")
    return adapter.merge
