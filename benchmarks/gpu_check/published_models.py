"""The published encoders with random weights, or narrow ones of the same architecture for a CPU.

Random weights take the same time and round the same way; the published ones may not be carried around.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from benchmarks.gpu_check.setting import Setting
from benchmarks.random_tile_encoder import write_random_weights
from encoders.load_weights import load_weights
from encoders.slide_encoder.encode import empty_slide_encoder
from encoders.slide_encoder.longnet import LongNetViT
from model_store.contracts.fields import Dtype
from model_store.contracts.slide_stage import LongnetPool
from model_store.contracts.tile_encoder import TimmTileEncoder
from model_store.manifest import packaged_manifest
from training.seeded_weights import seeded_weights

_MODEL = "wsi-llava"
# SwiGLU, LayerScale and a class token as the published one, in four blocks, so that two are neither first nor last.
_NARROW_TILES = {"img_size": 64, "embed_dim": 192, "depth": 4, "num_heads": 3}
_NARROW_SIDE_PX, _NARROW_WIDTH = 64, 192


def tile_encoder_spec(setting: Setting, dtype: Dtype | None = None) -> TimmTileEncoder:
    """`dtype`: None is the published one, of the narrow model float32."""
    spec = packaged_manifest(_MODEL).timm_tile_encoder()
    if not setting.small:
        return spec.model_copy(update={"dtype": dtype or spec.dtype})
    narrow = {
        "timm_args": {**spec.timm_args, **_NARROW_TILES},
        "input_px": _NARROW_SIDE_PX,
        "feature_dim": _NARROW_WIDTH,
        "batch_tiles": 4,
        "dtype": dtype or "float32",
    }
    return spec.model_copy(update=narrow)


def tile_encoder_weights(setting: Setting, spec: TimmTileEncoder) -> Path:
    """A file of random weights in float16, whatever the spec's dtype, written by the first check that asks."""
    path = setting.scratch / f"tile_encoder-{spec.timm_args['depth']}.safetensors"
    if not path.exists():
        draft = path.with_suffix(".part")
        write_random_weights(draft, spec.model_copy(update={"dtype": "float16"}))
        draft.rename(path)
    return path


def slide_encoder_spec(setting: Setting, dtype: Dtype | None = None) -> LongnetPool:
    """`dtype`: None is the published one; small is one layer of the published width."""
    spec = packaged_manifest(_MODEL).longnet_pool()
    return spec.model_copy(update={"dtype": dtype or spec.dtype, "depth": 1 if setting.small else spec.depth})


def slide_encoder_weights(setting: Setting) -> Path:
    """A file of seeded weights in float32, written by the first check that asks."""
    path = setting.scratch / "slide_encoder.safetensors"
    if not path.exists():
        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in sorted(empty_slide_encoder(slide_encoder_spec(setting)).state_dict().items())
        }
        draft = path.with_suffix(".part")
        save_file(seeded_weights(shapes, np.random.default_rng(0)), draft)
        draft.rename(path)
    return path


def slide_model(setting: Setting, device: str, dtype: torch.dtype) -> LongNetViT:
    """The slide encoder's module on a device, its matrix products in `dtype`."""
    model = empty_slide_encoder(slide_encoder_spec(setting))
    load_weights(model, slide_encoder_weights(setting), "slide encoder")
    model = model.to(device).eval()
    model.use_matmul_dtype(dtype)
    return model


def drawn_slide(tiles: int, channels: int) -> tuple[Tensor, Tensor]:
    """Features float32 [tiles, channels] and level-0 coordinates int64 [tiles, 2] in raster order, 512 in a row."""
    features = np.random.default_rng(1).standard_normal((tiles, channels), dtype=np.float32)
    y, x = np.divmod(np.arange(tiles, dtype=np.int64), 512)
    return torch.from_numpy(features), torch.from_numpy(np.stack([x, y], axis=1) * 256)
