"""The kind `longnet-all`: LongNet over the tile features, without class token and positions, and all rows kept."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.load_weights import TORCH_DTYPES, load_weights
from encoders.slide_encoder.dilated_attention import Branch
from encoders.slide_encoder.encode import SlideAttention, asked_all_along, trying_twice
from encoders.slide_encoder.flash_attention import load_flash_attention
from encoders.slide_encoder.longnet import TOKENS_ALONE, Encoder, use_attention, use_matmul_dtype
from encoders.slide_stages.slide_stage import Ask
from encoders.slide_stages.tile_stage import Tiles, TileStage
from model_store.contracts.slide_stage import LongnetAll
from model_store.contracts.tile_encoder import InputSpec


class LongnetAllStage(TileStage):
    """One slide encoder on one device; its state dict has the names of torchscale's encoder (`layers.0.self_attn…`)."""

    spec: LongnetAll

    def __init__(
        self,
        spec: LongnetAll,
        inputs: Mapping[str, InputSpec],
        weights: Path,
        device: torch.device,
        attention: SlideAttention,
    ) -> None:
        super().__init__(spec, inputs)
        self._device = device
        self._model = empty_longnet(spec)
        load_weights(self._model, weights, "slide encoder")
        self._model.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
        use_matmul_dtype(self._model, TORCH_DTYPES[spec.dtype])
        if attention == "flash-attn" and branches_of(spec) != (TOKENS_ALONE,):  # else there is nothing to attend to
            use_attention(self._model, load_flash_attention(device, TORCH_DTYPES[spec.dtype]))

    def rows(self, tiles: Mapping[str, Tiles], ask: Ask) -> NDArray[np.floating]:
        """A row for each tile, or for each of the `max_rows` tiles that a larger slide is thinned to: [N, in_chans]."""
        [one] = tiles.values()
        features = one.thinned(self.spec.max_rows).features
        return trying_twice(lambda: self._encoded(features, ask), self._device, len(features))

    @torch.inference_mode()
    def _encoded(self, features: NDArray[np.float32], ask: Ask) -> NDArray[np.floating]:
        # A copy: the encoder overwrites what it is given.
        embeddings = torch.tensor(features, dtype=torch.float32, device=self._device)
        with asked_all_along(self._model, ask):
            return np.asarray(self._model(embeddings, "last").encoder_out.cpu().numpy())


def empty_longnet(spec: LongnetAll) -> Encoder:
    """The model on the meta device: names and shapes, no numbers."""
    hidden = int(spec.in_chans * spec.mlp_ratio)
    with torch.device("meta"):
        return Encoder(spec.depth, spec.in_chans, spec.num_heads, hidden, branches_of(spec))


def branches_of(spec: LongnetAll) -> tuple[Branch, ...]:
    """The attention's, pair by pair."""
    pairs = zip(spec.segment_lengths, spec.dilated_ratios, strict=True)
    return tuple(Branch(segment, ratio) for segment, ratio in pairs)
