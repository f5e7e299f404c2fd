"""A tile encoder that computes a batch in milliseconds: random weights, the architecture of the published ones."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.torchvision_ops import timm
from model_store.contracts.tile_encoder import TimmTileEncoder

SIDE_PX = 32
FEATURE_DIM = 48
BATCH_TILES = 8
CPU = torch.device("cpu")
# SwiGLU, LayerScale and a class token, as GigaPath's; four blocks, so that two are neither first nor last.
_ARGUMENTS = {
    "img_size": SIDE_PX,
    "patch_size": 16,
    "embed_dim": FEATURE_DIM,
    "depth": 4,
    "num_heads": 3,
    "init_values": 0.1,
    "num_classes": 0,
    "global_pool": "token",
}


def spec_of(**changes: Any) -> TimmTileEncoder:
    """The description of the small encoder with some fields changed."""
    return TimmTileEncoder(
        **{
            "kind": "timm",
            "timm_model": "vit_giant_patch14_dinov2",
            "timm_args": _ARGUMENTS,
            "input_px": SIDE_PX,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "feature_dim": FEATURE_DIM,
            "dtype": "float32",
            "batch_tiles": BATCH_TILES,
            "weights": "tile_encoder/model.safetensors",
        }
        | changes
    )


def seeded_model(spec: TimmTileEncoder, seed: int = 0) -> nn.Module:
    """What timm builds, in evaluation mode; LayerScale as spec says, everything else drawn, zeros too."""
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(spec.timm_model, pretrained=False, **spec.timm_args)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and "gamma" not in name:
            nn.init.uniform_(parameter, 0.5 if "norm" in name and name.endswith("weight") else -0.5, 1.0)
    return model.eval()


def small_weights(folder: Path, spec: TimmTileEncoder, seed: int = 0) -> Path:
    """Writes the weights of `seeded_model`."""
    path = folder / f"seed-{seed}.safetensors"
    save_file(seeded_model(spec, seed).state_dict(), path)
    return path


def small_encoder(folder: Path, *, compiles: bool = False, **changes: Any) -> TileEncoder:
    """Ready to use on the CPU."""
    spec = spec_of(**changes)
    return TileEncoder(spec, small_weights(folder, spec), CPU, compiles=compiles)
