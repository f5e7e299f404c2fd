"""Step 4: tile pixels to features. Pixels travel to the device as uint8, a quarter of the bytes of floats.

Shapes: B batch, P tile_px, I input_px, D feature_dim.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.load_weights import TORCH_DTYPES
from encoders.tile_encoder.model import build_tile_encoder
from model_store.errors import ModelError
from model_store.manifest import TileEncoderSpec


class TileEncoder:
    """One tile encoder on one device; always runs batches of `batch_tiles`, so compiled kernels see one shape."""

    def __init__(self, spec: TileEncoderSpec, weights: Path, device: torch.device) -> None:
        self._spec = spec
        self._device = device
        self._model = build_tile_encoder(spec, weights, device)
        self._mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)

    @property
    def batch_tiles(self) -> int:
        """How many tiles one pass takes; `encode` pads to it."""
        return self._spec.batch_tiles

    def warm_up(self) -> None:
        """One full batch on the real path; raises ModelError when the model does not give what the manifest says."""
        side = self._spec.input_px
        features = self.encode(np.zeros((self.batch_tiles, side, side, 3), dtype=np.uint8))
        if features.shape[1] != self._spec.feature_dim:
            raise ModelError(
                f"The tile encoder gives {features.shape[1]} features, its manifest says {self._spec.feature_dim}."
            )

    @torch.inference_mode()
    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [B, P, P, 3], RGB → float32 [B, D], any B ≥ 1; raises ModelError for a result that is not finite."""
        cropped = centre_crop(pixels, self._spec.input_px)
        parts = [self._encode_batch(part) for part in _batches(cropped, self.batch_tiles)]
        features = np.concatenate(parts)
        if not np.isfinite(features).all():
            raise ModelError(f"The tile encoder overflowed in {self._spec.dtype}; use another dtype in its manifest.")
        return features

    def _encode_batch(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        batch = np.zeros((self.batch_tiles, *pixels.shape[1:]), dtype=np.uint8)
        batch[: len(pixels)] = pixels
        features: Tensor = self._model(self._normalise(torch.from_numpy(batch).to(self._device)))
        return np.asarray(features[: len(pixels)].float().cpu().numpy())

    def _normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [B, I, I, 3] → [B, 3, I, I] of the model's dtype; equals torchvision's ToTensor and Normalize."""
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        return ((scaled - self._mean) / self._std).to(TORCH_DTYPES[self._spec.dtype])


def centre_crop(pixels: NDArray[np.uint8], input_px: int) -> NDArray[np.uint8]:
    """[B, P, P, 3] → [B, I, I, 3]; raises ModelError when the tiles are smaller than the model's input."""
    margin = pixels.shape[1] - input_px
    if margin < 0:
        raise ModelError(f"The tile encoder needs {input_px} px, the tiles have {pixels.shape[1]}.")
    start = margin // 2
    return pixels[:, start : start + input_px, start : start + input_px]


def _batches(pixels: NDArray[np.uint8], batch_tiles: int) -> list[NDArray[np.uint8]]:
    return [pixels[first : first + batch_tiles] for first in range(0, len(pixels), batch_tiles)]
