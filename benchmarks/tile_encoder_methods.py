"""Ways to turn tiles on the host into features on the host: ours, and the usual one of public pipelines.

What the usual pipelines do on the CPU before (floats and normalisation, in loader processes) is done for them
beforehand and not counted.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from encoders.load_weights import TORCH_DTYPES
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.model import empty_tile_encoder
from model_store.contracts.tile_encoder import TimmTileEncoder

EAGER: Final = "ours"
COMPILED: Final = "ours, compiled"
FLOAT8: Final = "ours, float8"
USUAL: Final = "timm + autocast"

# uint8 [batches, B, I, I, 3] → what makes float32 [batches * B, D] of them, again and again.
Encode = Callable[[], NDArray[np.float32]]


class Ours:
    """As the worker runs it, through the batcher; `ready_s` is what loading and warming up took."""

    def __init__(self, spec: TimmTileEncoder, weights: Path, device: torch.device, compiles: bool) -> None:
        began = time.perf_counter()
        # Random weights may not pass the gate for 8 bits; the time is the same.
        self.encoder = TileEncoder(spec, weights, device, compiles=compiles, float8_least_cosine=-1.0)
        self.encoder.warm_up()
        self.ready_s = time.perf_counter() - began
        self._batcher = TileBatcher(self.encoder)

    def encode(self, tiles: NDArray[np.uint8]) -> Encode:
        """See `Encode`."""
        return lambda: self._encode(tiles)

    def close(self) -> None:
        """Ends the batcher's thread."""
        self._batcher.close()

    def _encode(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._batcher.slide() as slide:
            parts = []
            for batch in tiles:
                slide.put(batch)
                parts += slide.take()
            return np.concatenate([*parts, *slide.finish()])


class Usual:
    """timm's model with float32 weights under autocast, float32 tiles from unpinned memory, a copy back per batch."""

    def __init__(self, spec: TimmTileEncoder, weights: Path, device: torch.device) -> None:
        self._device = device
        self._dtype = TORCH_DTYPES[spec.dtype]
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
        self._model = _plain_model(spec, weights).to(device)

    def encode(self, tiles: NDArray[np.uint8]) -> Encode:
        """See `Encode`; normalises now."""
        batches = [self._normalised(batch) for batch in tiles]
        return lambda: self._encode(batches)

    @torch.inference_mode()
    def exact(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same without autocast, in float32: what the others are compared with."""
        batches = [self._normalised(batch) for batch in tiles]
        features: Tensor = torch.cat([self._model(batch.to(self._device)).cpu() for batch in batches])
        return features.numpy()

    @torch.inference_mode()
    def _encode(self, batches: list[Tensor]) -> NDArray[np.float32]:
        return torch.cat([self._features(batch) for batch in batches]).numpy()

    def _features(self, batch: Tensor) -> Tensor:
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            features: Tensor = self._model(batch.to(self._device))
        return features.float().cpu()

    def _normalised(self, batch: NDArray[np.uint8]) -> Tensor:
        return (torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().float() / 255 - self._mean) / self._std


@contextmanager
def full_float32() -> Iterator[None]:
    """No TensorFloat-32 in the block: it would be the reference's own rounding."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _plain_model(spec: TimmTileEncoder, weights: Path) -> nn.Module:
    model = empty_tile_encoder(spec)
    state = {name: tensor.float() for name, tensor in load_file(weights).items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)
