"""Tile encoders of published size and random weights: what takes time depends on shapes, not on what was learned."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from encoders.tile_encoder.model import empty_tile_encoder
from model_store.contracts.tile_encoder import TimmTileEncoder
from model_store.convert.tile_encoder_tables import tile_encoder_tables
from model_store.files.write_safetensors import TORCH_DTYPES, TensorEntry, write_safetensors
from model_store.manifest import packaged_manifest, packaged_names

SMALL: Final = "vit_small"
# ViT-S/16, as large as the smaller published pathology encoders: ends on a CPU.
_SMALL_SPEC: Final = TimmTileEncoder(
    kind="timm",
    timm_model="vit_small_patch16_224",
    timm_args={"num_classes": 0, "global_pool": "token"},
    input_px=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    feature_dim=384,
    dtype="float16",
    batch_tiles=128,
    weights="tile_encoder/model.safetensors",
)


def encoder_specs() -> dict[str, TimmTileEncoder]:
    """Every timm tile encoder that this repository describes, by the name of its model or table."""
    models = {
        name: given.tile_encoder
        for name in packaged_names()
        for given in packaged_manifest(name).inputs.values()
        if isinstance(given.tile_encoder, TimmTileEncoder)
    }
    tables = {name: table.tile_encoder for name, table in tile_encoder_tables().items()}
    return {SMALL: _SMALL_SPEC} | tables | models


def write_random_weights(path: Path, spec: TimmTileEncoder) -> None:
    """A weights file of the spec's dtype, seeded."""
    state = empty_tile_encoder(spec).state_dict()
    entries = [TensorEntry(name, tuple(tensor.shape), spec.dtype) for name, tensor in state.items()]
    write_safetensors(path, entries, _tensors(entries))


def _tensors(entries: list[TensorEntry]) -> Iterator[Tensor]:
    """Drawn directly in the dtype: drawing them in fp32 takes longer than everything else."""
    generator = torch.Generator().manual_seed(0)
    for entry in entries:
        least, most = _bounds(entry)
        yield torch.empty(entry.shape, dtype=TORCH_DTYPES[entry.dtype]).uniform_(least, most, generator=generator)


def _bounds(entry: TensorEntry) -> tuple[float, float]:
    """So that activations stay in the range of half precision and tiles get different features."""
    if len(entry.shape) > 1:  # matrices of unit gain
        bound = (3 * entry.shape[0] / entry.elements) ** 0.5
        return -bound, bound
    if entry.name.endswith("gamma"):  # LayerScale
        return 0.1, 0.5
    if "norm" in entry.name and entry.name.endswith("weight"):
        return 0.5, 1.5
    return -0.1, 0.1
