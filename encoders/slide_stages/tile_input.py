"""An input of a model on its device: how a slide is cut for it, and the tile encoder that sees the tiles."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.encode import TileEncoder
from model_store.contracts.tile_encoder import InputSpec
from model_store.installed import InstalledModel


@dataclass(frozen=True)
class TileInput:
    """Tiles of all slides meet in the batches of `batcher`."""

    spec: InputSpec
    tiles: TileEncoder
    batcher: TileBatcher


def load_tile_encoders(model: InstalledModel, device: torch.device) -> Mapping[str, TileEncoder]:
    """The tile encoder of each input, not warm yet; raises ModelError."""
    specs = {name: given.tile_encoder for name, given in model.manifest.inputs.items()}
    return {name: TileEncoder(spec, model.file(spec.weights), device) for name, spec in specs.items()}
