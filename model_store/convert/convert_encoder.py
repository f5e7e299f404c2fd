"""The published tile and slide encoders → one safetensors file each."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from torch import Tensor

from model_store.contracts.fields import Dtype
from model_store.convert.convert_weights import Shard, Target, plan_conversion, write_planned
from model_store.convert.tensor_names import SLIDE_ENCODER, TILE_ENCODER
from model_store.errors import ModelError
from model_store.files.checkpoint_files import only_tensors, read_pickle, read_shard
from model_store.files.write_safetensors import Shape

SLIDE_ENCODER_FILE: Final = "slide_encoder.pth"
# Beside optimiser state and arguments in the file that pre-training saved.
_MODEL_ENTRY: Final = "model"


def convert_tile_encoder(files: Sequence[Path], expected: Mapping[str, Shape], dtype: Dtype, path: Path) -> None:
    """Writes the tile encoder in these weight files to `path`; raises ModelError naming the tensor or file at fault."""
    target = Target("tile encoder", TILE_ENCODER, expected, dtype)
    plan = plan_conversion([Shard(file.name, partial(read_shard, file)) for file in files], target)
    write_planned(path, plan.shards, target)


def convert_slide_encoder(file: Path, expected: Mapping[str, Shape], path: Path) -> Sequence[str]:
    """Writes the slide encoder of `slide_encoder.pth` to `path` in fp32; returns the names that it left out.

    fp32 whatever the manifest's dtype: layer norms and residual stream are computed in it. Raises ModelError.
    """
    target = Target("slide encoder", SLIDE_ENCODER, expected, "float32")
    plan = plan_conversion([Shard(file.name, partial(_model_entry, file))], target)
    write_planned(path, plan.shards, target)
    return plan.dropped


def _model_entry(file: Path) -> dict[str, Tensor]:
    entry = read_pickle(file).get(_MODEL_ENTRY)
    if not isinstance(entry, Mapping):
        raise ModelError(f"{file.name} has no entry {_MODEL_ENTRY!r} with tensors; it is not the published file.")
    return only_tensors(entry, file)
