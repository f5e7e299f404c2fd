"""Builds a tile encoder from its description: a timm model with our weights. No name of a published model here."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encoders.load_weights import TORCH_DTYPES, load_weights
from encoders.tile_encoder.class_token_block import read_class_token_only
from encoders.tile_encoder.fold_normalisation import fold_normalisation
from encoders.tile_encoder.torchvision_ops import timm
from model_store.contracts.tile_encoder import TileEncoderSpec
from model_store.errors import ModelError


class TileModel(nn.Module):
    """All that runs on the device: uint8 RGB [B, input_px, input_px, 3] → float32 [B, feature_dim]."""

    def __init__(self, pixels: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.pixels = pixels
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        features: Tensor = self.model(self.pixels(pixels))
        return features.float()


def build_tile_encoder(spec: TileEncoderSpec, weights: Path, device: torch.device) -> TileModel:
    """In evaluation mode, in the manifest's dtype; raises ModelError when description and weights differ.

    The same function of the pixels as the timm model behind the published transforms, computed with less.
    """
    dtype = TORCH_DTYPES[spec.dtype]
    model = empty_tile_encoder(spec)
    load_weights(model, weights, "tile encoder")
    pixels = fold_normalisation(model, spec, dtype)
    read_class_token_only(model)
    # The pixels' part keeps its float32 constants.
    return TileModel(pixels.to(device), model.to(device=device, dtype=dtype)).eval().requires_grad_(False)


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
