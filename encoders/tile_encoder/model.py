"""Builds a tile encoder from its description: a timm model with our weights. No name of a published model here."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from encoders.load_weights import TORCH_DTYPES, load_weights
from encoders.tile_encoder.torchvision_ops import timm
from model_store.errors import ModelError
from model_store.manifest import TileEncoderSpec


def build_tile_encoder(spec: TileEncoderSpec, weights: Path, device: torch.device) -> nn.Module:
    """The model in evaluation mode, in the manifest's dtype; raises ModelError when description and weights differ.

    Input [B, 3, input_px, input_px] of that dtype, output [B, feature_dim].
    """
    model = empty_tile_encoder(spec)
    load_weights(model, weights, "tile encoder")
    return model.to(device=device, dtype=TORCH_DTYPES[spec.dtype]).eval().requires_grad_(False)


def empty_tile_encoder(spec: TileEncoderSpec) -> nn.Module:
    """The model on the meta device: names and shapes, no numbers; raises ModelError when timm cannot build it."""
    timm_args: dict[str, Any] = dict(spec.timm_args)
    try:
        # On the meta device: 1.1 billion random numbers that the weights would overwrite take most of a minute.
        with torch.device("meta"):
            model: nn.Module = timm.create_model(spec.timm_model, pretrained=False, **timm_args)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"timm cannot build the tile encoder {spec.timm_model!r} as described: {error}") from error
    return model
