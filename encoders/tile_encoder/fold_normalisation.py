"""Normalisation folded into the patch embedding: the device gets raw pixels and no float tile ever exists.

The model wants (u / 255 - mean) / std of a pixel u. We give it x = (u - 128) / 64, which is exact in bfloat16 and
float16 (8-bit integers times a power of two), and put the rest of the formula into the convolution, in float64:

    weight' = weight * 64 / (255 std)        bias' = bias + sum of weight * (128 / 255 - mean) / std

That is right at the edges too because a patch embedding has no padding. 64 / (255 std) is close to 1, so no weight
leaves the range of 16 bits. A 16-bit model rounds the weight once more here, where the published transforms round every
normalised pixel: errors of one size (0.6 to 2 times theirs, by statistics and dtype), and both near that of the result.

The only reliance on timm's attributes: `VisionTransformer.patch_embed.proj`. Other models are normalised in float32.
"""

from typing import Final

import torch
from torch import Tensor, nn

from encoders.tile_encoder.torchvision_ops import PatchEmbed, VisionTransformer
from model_store.contracts.fields import Rgb
from model_store.contracts.tile_encoder import TimmTileEncoder

_CENTRE: Final = 128
_SCALE: Final = 64


class CentredPixels(nn.Module):
    """uint8 [B, I, I, 3] → (u - 128) / 64, [B, 3, I, I] in `dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return (pixels.permute(0, 3, 1, 2).to(self._dtype) - _CENTRE) / _SCALE


class NormalisedPixels(nn.Module):
    """uint8 [B, I, I, 3] → [B, 3, I, I] in `dtype`; equals torchvision's ToTensor and Normalize."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Rgb, std: Rgb, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        return ((scaled - self.mean) / self.std).to(self._dtype)


def fold_normalisation(model: nn.Module, spec: TimmTileEncoder, dtype: torch.dtype) -> nn.Module:
    """What stands before `model` from now on, uint8 pixels to its input; changes its patch embedding where it can.

    To be called with the weights loaded and before they are cast to `dtype`.
    """
    convolution = _foldable(model)
    if convolution is None:
        return NormalisedPixels(spec.mean, spec.std, dtype)
    _fold(convolution, spec.mean, spec.std)
    return CentredPixels(dtype)


def _foldable(model: nn.Module) -> nn.Conv2d | None:
    if type(model) is not VisionTransformer or type(model.patch_embed) is not PatchEmbed:
        return None
    convolution: nn.Conv2d = model.patch_embed.proj
    plain = convolution.padding == (0, 0) and convolution.groups == 1 and convolution.in_channels == 3
    # Padding inside the patch embedding would pad with x = 0, which is no longer the mean colour.
    return convolution if plain and not model.patch_embed.dynamic_img_pad else None


@torch.no_grad()
def _fold(convolution: nn.Conv2d, mean: Rgb, std: Rgb) -> None:
    weight = convolution.weight.double()
    mean_rgb, std_rgb = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (mean, std))
    bias = (weight * ((_CENTRE / 255 - mean_rgb) / std_rgb)).sum((1, 2, 3))
    if convolution.bias is not None:
        bias += convolution.bias.double()
    convolution.weight = nn.Parameter((weight * (_SCALE / (255 * std_rgb))).float())
    convolution.bias = nn.Parameter(bias.float())
