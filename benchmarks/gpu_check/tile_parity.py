"""The tile encoder on the device against the published model in float32 on the CPU, dtype by dtype, uncompiled.

The reference is timm's model behind the published transform; nothing of it is ours.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu_check.published_models import tile_encoder_spec, tile_encoder_weights
from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting
from benchmarks.tile_encoder_methods import Usual, full_float32
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.float8_gate import LEAST_COSINE, cosines
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles
from model_store.contracts.fields import Dtype
from model_store.contracts.tile_encoder import TimmTileEncoder

# The last batch is not full.
_TILES, _BATCH_TILES, _SMALL_BATCH_TILES = 11, 8, 4
# Least cosine of any tile, and where it comes from. On a CPU 40 blocks give 0.999998 in float16, 0.99981 in bfloat16.
_LEAST: Final[dict[Dtype, tuple[float, str]]] = {
    "float32": (0.999_999, "sums in another order"),
    "float16": (LEAST_COSINE, "the gate of 8-bit products"),
    "bfloat16": (LEAST_COSINE, "the gate of 8-bit products"),
}


def check(setting: Setting) -> Finding:
    """In each dtype, and in float32 once more as a worker runs it, where cuDNN may use TF32 for the patch embedding."""
    expected = expected_features(setting)
    numbers = [
        agreement("float32 as served", features(setting, spec_of(setting, "float32")), expected, _LEAST["float16"])
    ]
    with full_float32(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        numbers += [
            agreement(dtype, features(setting, spec_of(setting, dtype)), expected, least)
            for dtype, least in _LEAST.items()
        ]
    return Finding(numbers=tuple(numbers))


def spec_of(setting: Setting, dtype: Dtype) -> TimmTileEncoder:
    """In batches that the tiles do not fill."""
    batch_tiles = _SMALL_BATCH_TILES if setting.small else _BATCH_TILES
    return tile_encoder_spec(setting, dtype).model_copy(update={"batch_tiles": batch_tiles})


def expected_features(setting: Setting) -> NDArray[np.float32]:
    """float32 [tiles, D] of the published model on the CPU."""
    spec = spec_of(setting, "float32")
    return Usual(spec, tile_encoder_weights(setting, spec), torch.device("cpu")).exact(_tiles(spec)[None])


def features(setting: Setting, spec: TimmTileEncoder, float8_least_cosine: float = LEAST_COSINE) -> NDArray[np.float32]:
    """float32 [tiles, D] of ours on the device."""
    device, weights = torch.device(setting.device), tile_encoder_weights(setting, spec)
    encoder = TileEncoder(spec, weights, device, compiles=False, float8_least_cosine=float8_least_cosine)
    return encoder.encode(_tiles(spec))


def agreement(name: str, found: NDArray[np.float32], expected: NDArray[np.float32], least: tuple[float, str]) -> Number:
    """The least cosine of any tile."""
    at_least, source = least
    value = float(cosines(found, expected).min())
    return Number(name=f"{name}, least cosine", value=value, at_least=at_least, source=source)


def _tiles(spec: TimmTileEncoder) -> NDArray[np.uint8]:
    return tissue_like_tiles(_TILES, spec.input_px)
