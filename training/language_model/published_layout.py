"""Writes a trained language model as LLaVA's own training leaves it; `eyepiece models convert` takes both layouts.

merged      config.json, model-…-of-….safetensors with an index, tokenizer files
lora        config.json, adapter_config.json, adapter_model.safetensors, non_lora_trainables.bin; needs its base

A folder appears whole or not at all. There is no vision tower in it: the reference loads one by the name in
config.json, and never runs it on slides.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor

from model_store.convert.llava_checkpoint import TOKENIZER_FILES
from training.errors import TrainingError
from training.language_model.low_rank import adapter_config, low_rank_factors, low_rank_of, merged_weights
from training.language_model.slide_language_model import SlideLanguageModel
from training.loop.stage_folder import partial_path, publish

# transformers' own default until version 5; a converter holds one shard in memory.
SHARD_BYTES: Final = 5_000_000_000
_METADATA: Final = {"format": "pt"}
_DTYPE_NAMES: Final = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}


def llava_weights(model: SlideLanguageModel) -> Iterator[tuple[str, Tensor]]:
    """Every weight under LLaVA's name, LoRA folded in, fp32, one at a time."""
    yield from merged_weights(model)
    for name, parameter in model.mm_projector.named_parameters():
        yield f"model.mm_projector.{name}", parameter.detach().float()


def write_merged(
    model: SlideLanguageModel,
    tokenizer: Path,
    folder: Path,
    dtype: torch.dtype = torch.float16,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """The whole model in `dtype`, with the tokenizer files that lie in the folder `tokenizer`.

    Raises:
        TrainingError: `folder` exists, or a weight does not fit into `dtype`.
    """
    built = _new_folder(folder)
    _write_json(built / "config.json", llava_config(model, dtype))
    shards = _write_shards(llava_weights(model), built, dtype, shard_bytes)
    _name_shards(built, shards)
    _copy_tokenizer(tokenizer, built)
    publish(built, folder)


def write_lora(model: SlideLanguageModel, base: str, folder: Path) -> None:
    """The LoRA pairs and the projector, fp32, as they were trained on top of the model that is called `base`.

    Raises:
        TrainingError: `folder` exists, or the model has no LoRA.
    """
    low_rank = low_rank_of(model)
    if low_rank is None:
        raise TrainingError("This model was trained without LoRA: write it merged.")
    built = _new_folder(folder)
    _write_json(built / "config.json", llava_config(model, torch.float32))
    _write_json(built / "adapter_config.json", adapter_config(low_rank, base))
    factors = {f"base_model.model.{name}": factor.contiguous() for name, factor in low_rank_factors(model)}
    (built / "adapter_model.safetensors").write_bytes(save(factors, metadata=_METADATA))
    projector = model.mm_projector.named_parameters()
    # Cloned: torch.save writes the whole storage that a tensor is a view of.
    others = {f"base_model.model.model.mm_projector.{name}": tensor.detach().clone() for name, tensor in projector}
    torch.save(others, built / "non_lora_trainables.bin")
    publish(built, folder)


def llava_config(model: SlideLanguageModel, dtype: torch.dtype) -> dict[str, Any]:
    """LLaVA's `config.json`: of a Llama, and what its loader asks of the multimodal part."""
    llama = model.llama.config
    copied = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "initializer_range"),
    )
    rope: Any = llama.rope_parameters
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        **{key: getattr(llama, key) for key in copied},
        "rope_theta": rope["rope_theta"],
        "rope_scaling": None,
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": _DTYPE_NAMES[dtype],
        "use_cache": True,
        **_multimodal(model.projector_width),
    }


def _multimodal(projector_width: int) -> dict[str, Any]:
    return {
        "mm_hidden_size": projector_width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "flat",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        # The loader insists on one; slides pass it by.
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "image_aspect_ratio": "pad",
        "tokenizer_model_max_length": 2048,
        "tokenizer_padding_side": "right",
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": False,
        "use_mm_proj": True,
    }


@dataclass(frozen=True)
class _Shard:
    path: Path
    names: list[str]
    data_bytes: int


def _write_shards(
    weights: Iterator[tuple[str, Tensor]], built: Path, dtype: torch.dtype, shard_bytes: int
) -> list[_Shard]:
    """Numbered from 1 in the order of the weights; each holds at most `shard_bytes`, or one tensor that is larger."""
    shards: list[_Shard] = []
    held: dict[str, Tensor] = {}
    for name, weight in weights:
        cast = _cast(name, weight, dtype)
        if held and _bytes(held) + cast.nbytes > shard_bytes:
            shards.append(_write_shard(built, len(shards) + 1, held))
            held = {}
        held[name] = cast
    return [*shards, _write_shard(built, len(shards) + 1, held)]


def _write_shard(built: Path, number: int, tensors: Mapping[str, Tensor]) -> _Shard:
    path = built / f"shard-{number}"
    path.write_bytes(save(dict(tensors), metadata=_METADATA))
    return _Shard(path, list(tensors), _bytes(tensors))


def _name_shards(built: Path, shards: list[_Shard]) -> None:
    """transformers' names, which say how many there are; an index where there is more than one."""
    if len(shards) == 1:
        shards[0].path.rename(built / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        shard.path.rename(built / file)
        weight_map |= dict.fromkeys(shard.names, file)
    total = sum(shard.data_bytes for shard in shards)
    _write_json(built / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _cast(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    cast = weight.to("cpu", dtype).contiguous()
    if not cast.isfinite().all():
        raise TrainingError(f"{name} holds a value that {_DTYPE_NAMES[dtype]} cannot: write the model in bfloat16.")
    return cast


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _copy_tokenizer(tokenizer: Path, built: Path) -> None:
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, built / name)


def _new_folder(folder: Path) -> Path:
    if folder.exists():
        raise TrainingError(f"{folder} exists already: remove it, or write to another folder.")
    built = partial_path(folder.parent, folder.name)
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir(parents=True)
    return built


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
