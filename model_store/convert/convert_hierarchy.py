"""The published networks of MLLM-HWSI but for CellViT → one safetensors file each: HIPT, CONCH, DINOv2, the projector.

Strict, where the public code loads what fits and says nothing: a tensor that is missing, left over or of another shape
stops the conversion. What a checkpoint holds for training or for text, and nothing here reads, is dropped by name.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from torch import Tensor

from model_store.contracts.fields import Dtype
from model_store.convert.convert_weights import Shard, Target, plan_conversion, write_planned
from model_store.convert.tensor_names import CONCH_IMAGE, DINOV2_BLOCKS, HIERARCHICAL_PROJECTOR, HIPT
from model_store.errors import ModelError
from model_store.files.checkpoint_files import only_tensors, read_pickle, read_shard
from model_store.files.write_safetensors import Shape

# Where files hold their tensors, when not at the top: DINO's average of the students, lightning's, MLLM-HWSI's two.
_HIPT_ENTRIES: Final = ("teacher",)
_CONCH_ENTRIES: Final = ("state_dict",)
_PROJECTOR_ENTRIES: Final = ("vl_projector_state_dict", "pathology_encoder_state_dict", "state_dict")


def convert_hipt(file: Path, expected: Mapping[str, Shape], dtype: Dtype, path: Path) -> Sequence[str]:
    """Writes ViT-256 or ViT-4K to `path`, whichever `expected` is; returns the names that it left out.

    `file` is `vit256_small_dino.pth` or `vit4k_xs_dino.pth`, a checkpoint of DINO's training. Raises ModelError that
    names the tensor or the file at fault.
    """
    return _convert(file, _HIPT_ENTRIES, Target("region encoder", HIPT, expected, dtype), path)


def convert_conch(file: Path, expected: Mapping[str, Shape], dtype: Dtype, path: Path) -> Sequence[str]:
    """Writes CONCH's image tower of `pytorch_model.bin` to `path`; returns the names that it left out.

    Raises ModelError that names the tensor or the file at fault.
    """
    return _convert(file, _CONCH_ENTRIES, Target("patch encoder", CONCH_IMAGE, expected, dtype), path)


def convert_dinov2_blocks(file: Path, expected: Mapping[str, Shape], dtype: Dtype, path: Path) -> Sequence[str]:
    """Writes the blocks of DINOv2's ViT-S/14 to `path`; returns the names that it left out.

    `file` is `dinov2_vits14_pretrain.pth`, or timm's safetensors of the same weights. Raises ModelError that names the
    tensor or the file at fault.
    """
    return _convert(file, (), Target("cell fusion", DINOV2_BLOCKS, expected, dtype), path)


def convert_projector(file: Path, expected: Mapping[str, Shape], path: Path) -> Sequence[str]:
    """Writes the projector of `vl_projector.pt` to `path` in fp32, as it is computed; returns warnings.

    Raises ModelError that names the tensor or the file at fault.
    """
    _convert(file, _PROJECTOR_ENTRIES, Target("projector", HIERARCHICAL_PROJECTOR, expected, "float32"), path)
    if not _never_trained(read_shard(path)):
        return []
    return [
        f"The projector in {file.name} was never trained: all of its layer norms are as they were built. Its answers "
        "say nothing about the slide; get the weights that training wrote."
    ]


def _convert(file: Path, entries: Sequence[str], target: Target, path: Path) -> Sequence[str]:
    plan = plan_conversion([Shard(file.name, partial(_tensors, file, entries))], target)
    write_planned(path, plan.shards, target)
    return plan.dropped


def _tensors(file: Path, entries: Sequence[str]) -> dict[str, Tensor]:
    """Those of the first of these entries that is there, else those of the file itself."""
    if file.suffix == ".safetensors":
        return read_shard(file)
    content = read_pickle(file)
    for name in entries:
        if name in content:
            entry = content[name]
            if not isinstance(entry, Mapping):
                raise ModelError(f"The entry {name!r} of {file.name} holds no tensors by name; get the published file.")
            return only_tensors(entry, file)
    return only_tensors(content, file)


def _never_trained(tensors: Mapping[str, Tensor]) -> bool:
    """Whether every layer norm has the weight 1 and the bias 0, which any step of training changes.

    MLLM-HWSI's public training script of the last stage makes a new projector, freezes it, and saves it.
    """
    vectors = [name for name, tensor in tensors.items() if name.endswith(".weight") and tensor.dim() == 1]
    norms = [name.removesuffix(".weight") for name in vectors]
    return bool(norms) and all(
        bool((tensors[f"{norm}.weight"] == 1).all()) and not bool(tensors[f"{norm}.bias"].any()) for norm in norms
    )
