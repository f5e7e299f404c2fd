"""The slide encoder on the device against float32 on the CPU: its tokens dtype by dtype, and its gradients.

Training takes another way through attention than inference, padding in memory and results out of place.
"""

from typing import Final

import torch
from torch import Tensor

from benchmarks.gpu_check.published_models import drawn_slide, slide_encoder_spec, slide_model
from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting

# More than 5792 tokens: the second branch has two segments, the last of them with keys that are counted, not computed.
_TILES, _SMALL_TILES = 6_500, 1_200
_GRADIENT_TILES = 300
# Largest error of a token, relative to its norm. On a CPU 12 layers of 16-bit products gave 9e-4 and 7e-3 of it (1,200
# tiles), float32 in another order of sums gives some 1e-6. Five times as much and more: kernels differ.
_MOST: Final = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
_MOST_OF_GRADIENT: Final = 1e-3


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
    numbers.append(_gradients(setting, features[:_GRADIENT_TILES], coords[:_GRADIENT_TILES]))
    return Finding(numbers=tuple(numbers))


def _gradients(setting: Setting, features: Tensor, coords: Tensor) -> Number:
    """The first layer's, which everything behind it has a part in."""
    found, expected = (_gradient(setting, device, features, coords) for device in (setting.device, "cpu"))
    error = float((found - expected).norm() / expected.norm())
    return Number(name="float32, error of the gradient", value=error, at_most=_MOST_OF_GRADIENT, source="order of sums")


def _gradient(setting: Setting, device: str, features: Tensor, coords: Tensor) -> Tensor:
    model = slide_model(setting, device, torch.float32)
    tokens = model(features.to(device), coords).encoder_out
    # Not the tokens' squares: layer norm has made their sum the same for all.
    direction = torch.randn(tokens.shape[1], generator=torch.Generator().manual_seed(2))
    (tokens @ direction.to(device)).mean().backward()
    gradient = model.patch_embed.proj.weight.grad
    assert gradient is not None, "it is trained"
    return gradient.cpu()


@torch.inference_mode()
def _tokens(setting: Setting, device: str, dtype: torch.dtype, features: Tensor, coords: Tensor) -> Tensor:
    model = slide_model(setting, device, dtype)
    tokens: Tensor = model(features.to(device), coords).encoder_out
    return tokens.float().cpu()
