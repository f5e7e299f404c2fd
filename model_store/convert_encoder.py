"""The published tile and slide encoders → one safetensors file each."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from torch import Tensor

from model_store.checkpoint_files import read_pickle, read_shard, shards_of
from model_store.convert_weights import Plan, Shard, Target, plan_conversion, write_planned
from model_store.errors import ModelError
from model_store.manifest import Dtype
from model_store.tensor_names import SLIDE_ENCODER, TILE_ENCODER
from model_store.write_safetensors import Shape

SLIDE_ENCODER_FILE: Final = "slide_encoder.pth"
# Beside optimiser state and arguments in the file that pre-training saved.
_MODEL_ENTRY: Final = "model"


def convert_tile_encoder(folder: Path, expected: Mapping[str, Shape], dtype: Dtype, path: Path) -> list[Path]:
    """Writes the tile encoder of a Hugging Face folder to `path`; returns the files that it read."""
    files = shards_of(folder)
    target = Target("tile encoder", TILE_ENCODER, expected, dtype)
    plan = plan_conversion([Shard(file.name, partial(read_shard, file)) for file in files], target)
    write_planned(path, plan.shards, target)
    return files


def convert_slide_encoder(folder: Path, expected: Mapping[str, Shape], path: Path) -> Plan:
    """Writes the slide encoder of `slide_encoder.pth` to `path` in fp32; the plan lists what it dropped.

    fp32 whatever the manifest's dtype: its layer norms and residual stream are computed in it.
    """
    file = folder / SLIDE_ENCODER_FILE
    if not file.is_file():
        raise ModelError(f"{SLIDE_ENCODER_FILE} is missing; get the file.")
    target = Target("slide encoder", SLIDE_ENCODER, expected, "float32")
    plan = plan_conversion([Shard(file.name, partial(_model_entry, file))], target)
    write_planned(path, plan.shards, target)
    return plan


def _model_entry(file: Path) -> dict[str, Tensor]:
    entry = read_pickle(file).get(_MODEL_ENTRY)
    if not isinstance(entry, Mapping):
        raise ModelError(f"{file.name} has no entry {_MODEL_ENTRY!r} with tensors; it is not the published file.")
    for name, value in entry.items():
        if not isinstance(value, Tensor):
            raise ModelError(f"The entry {name!r} of {file.name} is not a tensor; it is not the published file.")
    return dict(entry)
