"""The accuracy gate: 8-bit products are used only where every sample tile's features stay what 16 bits make them."""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from encoders.tile_encoder.float8_linear import multiply_in_float8
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles
from model_store.errors import ModelError

LEAST_COSINE: Final = 0.999
_SAMPLE_TILES: Final = 64
# Ada; Hopper is 9.0.
_LEAST_CAPABILITY: Final = (8, 9)

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def require_float8_device(device: torch.device) -> None:
    """Raises ModelError where products in 8 bits would be no faster or do not exist."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        raise ModelError(
            'matmul = "float8" needs an NVIDIA GPU of compute capability 8.9 or newer (Ada, Hopper, Blackwell); '
            'set matmul = "dtype".'
        )


def switch_to_float8(model: nn.Module, encode: Encode, input_px: int, least_cosine: float) -> float:
    """Makes `model`, which `encode` runs, multiply in 8 bits and returns the least cosine over sample tiles.

    Raises ModelError when that is below `least_cosine`; the model is then of no more use.
    """
    sample = tissue_like_tiles(_SAMPLE_TILES, input_px)
    expected = encode(sample)
    multiply_in_float8(model)
    least = float(cosines(encode(sample), expected).min())
    # Written so that NaN fails.
    if not least >= least_cosine:
        raise ModelError(
            f"In 8 bits the tile encoder's features differ too much (cosine {least:.4f} to 16 bits, at least "
            f'{least_cosine} is needed); set matmul = "dtype".'
        )
    return least


def cosines(features: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each pair of rows: [B, D], [B, D] → [B]."""
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(others, axis=1)
    return np.asarray((features * others).sum(1) / norms)
