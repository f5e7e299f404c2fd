"""The kind `longnet-pool`: LongNet, of whose output a fixed number of rows is taken. WSI-LLaVA's, and the demo's."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.slide_encoder.encode import SlideAttention, SlideEncoder
from encoders.slide_stages.slide_stage import Ask
from encoders.slide_stages.tile_stage import Tiles, TileStage
from model_store.contracts.slide_stage import LongnetPool
from model_store.contracts.tile_encoder import InputSpec


class LongnetPoolStage(TileStage):
    """One slide encoder on one device."""

    def __init__(
        self,
        spec: LongnetPool,
        inputs: Mapping[str, InputSpec],
        weights: Path,
        device: torch.device,
        attention: SlideAttention,
    ) -> None:
        super().__init__(spec, inputs)
        self.encoder = SlideEncoder(spec, weights, device, attention)

    def rows(self, tiles: Mapping[str, Tiles], ask: Ask) -> NDArray[np.floating]:
        """[slide_tokens, embed_dim], not padded."""
        [one] = tiles.values()
        return self.encoder.encode_rows(one.features, one.coords, one.tile_px, one.tile_px_level0, ask)
