"""Builds a tile encoder of any kind from its description, with our weights."""

from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from encoders.hierarchical.enlarge import Enlarge
from encoders.load_weights import TORCH_DTYPES, load_weights
from encoders.tile_encoder.class_token_block import read_class_token_only
from encoders.tile_encoder.conch_features import ConchFeatures
from encoders.tile_encoder.fold_normalisation import NormalisedPixels, fold_normalisation
from encoders.tile_encoder.torchvision_ops import timm
from model_store.contracts.tile_encoder import ConchTileEncoder, TileEncoderSpec, TimmTileEncoder
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

    The same function of the pixels as the published model behind the published transforms, computed with less.
    """
    dtype = TORCH_DTYPES[spec.dtype]
    model = empty_tile_encoder(spec)
    load_weights(model, weights, "tile encoder")
    pixels: nn.Module
    match spec:
        case TimmTileEncoder():
            pixels = fold_normalisation(model, spec, dtype)
            read_class_token_only(model)
        case ConchTileEncoder():
            enlarge = Enlarge(spec.input_px, spec.enlarged_px)
            pixels = nn.Sequential(enlarge, NormalisedPixels(spec.mean, spec.std, dtype))
        case _:
            assert_never(spec)
    # The pixels' part keeps its float32 constants.
    return TileModel(pixels.to(device), model.to(device=device, dtype=dtype)).eval().requires_grad_(False)


def empty_tile_encoder(spec: TileEncoderSpec) -> nn.Module:
    """The model on the meta device: names and shapes, no numbers; raises ModelError when timm cannot build it."""
    # On the meta device: 1.1 billion random numbers that the weights would overwrite take most of a minute.
    with torch.device("meta"):
        match spec:
            case TimmTileEncoder():
                return _empty_timm_model(spec)
            case ConchTileEncoder():
                return ConchFeatures(spec)
            case _:
                assert_never(spec)


def _empty_timm_model(spec: TimmTileEncoder) -> nn.Module:
    timm_args: dict[str, Any] = dict(spec.timm_args)
    try:
        model: nn.Module = timm.create_model(spec.timm_model, pretrained=False, **timm_args)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"timm cannot build the tile encoder {spec.timm_model!r} as described: {error}") from error
    return model
