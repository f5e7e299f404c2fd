"""Step 4: tile pixels to features. Pixels travel to the device as uint8, a quarter of the bytes of floats.

Shapes: B batch, P tile_px, I input_px, D feature_dim.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.device_errors import MORE_MEMORY, empty_cache, translated_device_errors
from encoders.errors import DeviceFull, DeviceOutOfMemory
from encoders.tile_encoder.compile_model import compile_model
from encoders.tile_encoder.cpu_features import fit_threads_to_quota, native_cpu_dtype
from encoders.tile_encoder.float8_gate import LEAST_COSINE, require_float8_device, switch_to_float8
from encoders.tile_encoder.model import build_tile_encoder
from encoders.tile_encoder.staging import Staging, copy_stream
from model_store.contracts.tile_encoder import TileEncoderSpec
from model_store.errors import ModelError

log = logging.getLogger(__name__)


class TileEncoder:
    """One tile encoder on one device; always runs batches of `batch_tiles`, so compiled kernels see one shape.

    Where the device's memory does not do for a batch, it goes in passes of half as many tiles, from then on.

    `encode` is the simple way. Who wants the device never to wait takes two or more `staging()`s and overlaps `start`
    with `finish` (encoders.tile_encoder.batcher). One thread at a time may compute.
    """

    def __init__(
        self,
        spec: TileEncoderSpec,
        weights: Path,
        device: torch.device,
        *,
        compiles: bool | None = None,
        float8_least_cosine: float = LEAST_COSINE,
    ) -> None:
        """`compiles`: whether `warm_up` compiles the model; None means on CUDA. Raises ModelError.

        `float8_least_cosine` is for who measures speed with random weights, which 8 bits change more.
        """
        self._spec = spec
        self._device = device
        # The patch embedding is a convolution, and cuDNN's would round float32 to 10 bits.
        torch.backends.cudnn.allow_tf32 = False
        self._compiles = device.type == "cuda" if compiles is None else compiles
        if spec.matmul == "float8":
            require_float8_device(device)
        self._copies = copy_stream(device)
        self._pass_tiles = spec.batch_tiles
        self._refused_passes = 0
        model = build_tile_encoder(spec, weights, device)
        self._model: nn.Module = model
        # Compiled code and for how many tiles.
        self._compiled: tuple[nn.Module, int] | None = None
        if spec.matmul == "float8":
            least = switch_to_float8(model.model, self.encode, spec.input_px, float8_least_cosine)
            log.info("The tile encoder multiplies in 8 bits; least cosine to 16 bits: %.5f", least)

    @property
    def batch_tiles(self) -> int:
        """How many tiles one pass takes; `encode` pads to it."""
        return self._spec.batch_tiles

    @property
    def compiled(self) -> bool:
        """Whether compiled code runs: only after `warm_up`, not where compiling failed or memory got too little."""
        return self._compiled is not None and self._compiled[1] == self._pass_tiles

    @property
    def pass_tiles(self) -> int:
        """How many tiles the device computes at once: `batch_tiles`, or fewer since its memory did not do for them."""
        return self._pass_tiles

    @property
    def refused_passes(self) -> int:
        """How often the device's memory did not do for a pass."""
        return self._refused_passes

    @property
    def input_px(self) -> int:
        """The side of what the model sees of a tile."""
        return self._spec.input_px

    def warm_up(self, sample: NDArray[np.uint8] | None = None) -> NDArray[np.float32]:
        """Compiles if wanted, then runs one full batch on the real path, the `sample` in it: [n, P, P, 3] → [n, D].

        Finds the passes that the device has memory for. Raises ModelError when the model does not give what the
        manifest says, DeviceFull when there is no memory for one tile.
        """
        if self._device.type == "cpu":
            self._prepare_cpu()
        if self._compiles and self._compiled is None:
            self._compile()
        tiles = np.zeros((self.batch_tiles, self.input_px, self.input_px, 3), dtype=np.uint8)
        count = 0 if sample is None else min(len(sample), self.batch_tiles)
        if sample is not None:
            tiles[:count] = centre_crop(sample[:count], self.input_px)
        features = self.encode(tiles)
        if features.shape[1] != self._spec.feature_dim:
            raise ModelError(
                f"The tile encoder gives {features.shape[1]} features, its manifest says {self._spec.feature_dim}."
            )
        return features[:count]

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [B, P, P, 3], RGB → float32 [B, D], any B ≥ 1; raises ModelError for a result that is not finite."""
        staging = self.staging()
        cropped = centre_crop(pixels, self.input_px)
        parts = [self._encode_batch(part, staging) for part in _batches(cropped, self.batch_tiles)]
        features = np.concatenate(parts)
        self.require_finite(features)
        return features

    def staging(self) -> Staging:
        """New buffers for one batch; they cost page-locked memory on CUDA, so few, and kept."""
        return Staging(self.batch_tiles, self.input_px, self._device, self._copies)

    @torch.inference_mode()
    def start(self, staging: Staging) -> None:
        """Computes the features of `staging.pixels`, all rows of it; returns before they are there, on CUDA.

        Raises DeviceFull when the device's memory does not do for one tile.
        """
        pixels = staging.to_device()
        while (features := self._features_of(pixels)) is None:
            self._take_smaller_passes()
        staging.bring_back(features)

    def require_finite(self, features: NDArray[np.float32]) -> None:
        """Raises ModelError when the model's dtype could not hold what it computed."""
        if not np.isfinite(features).all():
            raise ModelError(f"The tile encoder overflowed in {self._spec.dtype}; use another dtype in its manifest.")

    def _encode_batch(self, pixels: NDArray[np.uint8], staging: Staging) -> NDArray[np.float32]:
        staging.pixels[: len(pixels)] = pixels
        self.start(staging)
        return staging.features(len(pixels))

    def _features_of(self, pixels: Tensor) -> Tensor | None:
        """uint8 [B, I, I, 3] → float32 [B, D]; None when memory did not do, and then nothing is held any more."""
        # What was compiled is for one shape. Another is not compiled in the middle of a slide: that takes minutes, and
        # memory of which there is too little.
        model = self._compiled[0] if self._compiled is not None and self.compiled else self._model
        try:
            with translated_device_errors():
                if self._pass_tiles == len(pixels):
                    whole: Tensor = model(pixels)
                    return whole
                features = pixels.new_empty(len(pixels), self._spec.feature_dim, dtype=torch.float32)
                for rows in _passes(len(pixels), self._pass_tiles):
                    features[rows] = model(pixels[rows])
                return features
        except DeviceOutOfMemory:
            return None

    def _take_smaller_passes(self) -> None:
        """Half as many tiles at once from now on: who has taken the memory has it for longer than one batch."""
        self._refused_passes += 1
        empty_cache(self._device)
        if self._pass_tiles == 1:
            raise DeviceFull(f"The encoders' device has no memory for a single tile. {MORE_MEMORY}")
        refused, self._pass_tiles = self._pass_tiles, (self._pass_tiles + 1) // 2
        log.warning(
            "The device's memory does not do for %d tiles at once; from now on it is given %d.",
            refused,
            self._pass_tiles,
        )

    @torch.inference_mode()
    def _compile(self) -> None:
        """For as many tiles as there is memory for."""
        pixels = self.staging().to_device()
        while True:
            try:
                compiled = compile_model(self._model, pixels[_passes(len(pixels), self._pass_tiles)[0]])
                break
            except DeviceOutOfMemory:
                pass
            self._take_smaller_passes()
        if compiled is not None:
            self._compiled = compiled, self._pass_tiles

    def _prepare_cpu(self) -> None:
        fit_threads_to_quota()
        if self._spec.dtype == "float16":
            # Measured on a CPU with bfloat16 (Zen 5, ViT-S): 4 times slower than float32, 12 times than bfloat16.
            log.warning("The tile encoder runs in float16 on a CPU; %s is several times faster.", native_cpu_dtype())


def centre_crop(pixels: NDArray[np.uint8], input_px: int) -> NDArray[np.uint8]:
    """[B, P, P, 3] → [B, I, I, 3]; raises ModelError when the tiles are smaller than the model's input."""
    margin = pixels.shape[1] - input_px
    if margin < 0:
        raise ModelError(f"The tile encoder needs {input_px} px, the tiles have {pixels.shape[1]}.")
    start = margin // 2
    return pixels[:, start : start + input_px, start : start + input_px]


def _passes(batch_tiles: int, pass_tiles: int) -> list[slice]:
    """Which rows of a batch are computed at once: always as many, the last pass overlaps the one before."""
    firsts = range(0, batch_tiles, pass_tiles)
    return [slice(first, first + pass_tiles) for first in (min(it, batch_tiles - pass_tiles) for it in firsts)]


def _batches(pixels: NDArray[np.uint8], batch_tiles: int) -> list[NDArray[np.uint8]]:
    return [pixels[first : first + batch_tiles] for first in range(0, len(pixels), batch_tiles)]
