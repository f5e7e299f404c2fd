"""The slide encoder on the device against float32 on the CPU, dtype by dtype."""

from typing import Final

import torch
from torch import Tensor

from benchmarks.gpu_check.published_models import drawn_slide, slide_encoder_spec, slide_model
from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting

# More than 5792 tokens: the second branch has two segments, the last of them with keys that are counted, not computed.
_TILES, _SMALL_TILES = 6_500, 1_200
# Largest error of a token, relative to its norm. On a CPU 12 layers of 16-bit products gave 9e-4 and 7e-3 of it (1,200
# tiles), float32 in another order of sums gives some 1e-6. Five times as much and more: kernels differ.
_MOST: Final = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def check(setting: Setting) -> Finding:
    """Weights with random numbers at the published size; matrix products in three dtypes."""
    features, coords = drawn_slide(_SMALL_TILES if setting.small else _TILES, slide_encoder_spec(setting).in_chans)
    expected = _tokens(setting, "cpu", torch.float32, features, coords)
    numbers = []
    for dtype, most in _MOST.items():
        found = _tokens(setting, setting.device, dtype, features, coords)
        error = float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
        name = f"{str(dtype).removeprefix('torch.')}, largest error of a token"
        numbers.append(Number(name=name, value=error, at_most=most, source="several times a CPU's in that dtype"))
    return Finding(numbers=tuple(numbers))


@torch.inference_mode()
def _tokens(setting: Setting, device: str, dtype: torch.dtype, features: Tensor, coords: Tensor) -> Tensor:
    model = slide_model(setting, device, dtype)
    tokens: Tensor = model(features.to(device), coords.to(device)).encoder_out
    return tokens.float().cpu()
