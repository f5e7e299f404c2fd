"""Pillow's bicubic `resize`, to the last bit, on any device: whole-number arithmetic on whole pixels.

CONCH was trained and is published behind that filter. Float filters differ from it: torch's antialiased one in a
quarter of the pixels of a noise picture, by up to 20 levels.

Two passes, along x and then along y, each rounded to a uint8. A pixel of the result is a sum over the pixels within
`2 · max(1, from / to)` of its middle, with the weights of Keys' cubic convolution (a = -1/2; IEEE Transactions on
Acoustics, Speech, and Signal Processing 29, 1981), made to sum to 1 within the picture and rounded to 22 bits of
fraction, as Pillow's `Resample.c` does.
"""

import functools
import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_FRACTION_BITS: Final = 22
_REACH: Final = 2.0
_A: Final = -0.5


def enlarge(pixels: Tensor, side: int) -> Tensor:
    """uint8 [B, H, W, C] → uint8 [B, side, side, C], each picture for itself; larger ones are reduced.

    Equal to `Image.resize((side, side), Image.Resampling.BICUBIC)` of any Pillow for pictures that are enlarged, or are
    square. (Where the height is reduced much more than the width, Pillow goes along y first from version 13 on.)
    Raises ValueError for anything else than such pictures of at least one pixel.
    """
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or 0 in pixels.shape[1:3]:
        raise ValueError(f"Pictures are uint8 [B, H, W, C], not {pixels.dtype} {list(pixels.shape)}.")
    if side < 1:
        raise ValueError(f"A picture cannot have a side of {side} px.")
    return _resized(_resized(pixels, 2, side), 1, side)


class Enlarge(nn.Module):
    """`enlarge` for pictures of one size, uint8 [B, size, size, C] → [B, side, side, C]; may be compiled."""

    index: Tensor
    weights: Tensor

    def __init__(self, size: int, side: int) -> None:
        super().__init__()
        index, weights = _on(torch.device("cpu"), size, side)
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        if self.index.shape[1] == pixels.shape[1]:
            return pixels
        return _summed(_summed(pixels, 2, self.index, self.weights), 1, self.index, self.weights)


def _resized(pixels: Tensor, dim: int, size: int) -> Tensor:
    if pixels.shape[dim] == size:
        return pixels
    return _summed(pixels, dim, *_on(pixels.device, pixels.shape[dim], size))


def _on(device: torch.device, size: int, new_size: int) -> tuple[Tensor, Tensor]:
    """Which pixels are summed, and with what weights: [taps, new_size] each."""
    first, weights = _taps(size, new_size)
    # A tap beyond the picture has no weight; its pixel only has to be there.
    index = np.minimum(first + np.arange(len(weights))[:, None], size - 1)
    return torch.from_numpy(index).to(device), torch.from_numpy(weights).to(device)


def _summed(pixels: Tensor, dim: int, index: Tensor, weights: Tensor) -> Tensor:
    shape = [1] * pixels.dim()
    shape[dim] = -1
    total: Tensor | None = None
    for taken, weight in zip(index, weights, strict=True):
        product = pixels.index_select(dim, taken).to(torch.int32).mul_(weight.view(shape))
        total = product if total is None else total.add_(product)
    assert total is not None
    half = 1 << (_FRACTION_BITS - 1)
    return total.add_(half).bitwise_right_shift_(_FRACTION_BITS).clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=16)
def _taps(size: int, new_size: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The first pixel of each sum [new_size], and the weights [taps, new_size]."""
    scale = size / new_size
    filter_scale = max(scale, 1.0)
    reach = _REACH * filter_scale
    middles = (np.arange(new_size) + 0.5) * scale
    first = np.maximum(np.trunc(middles - reach + 0.5), 0).astype(np.int64)
    last = np.minimum(np.trunc(middles + reach + 0.5), size).astype(np.int64)
    offsets = np.arange(2 * math.ceil(reach) + 1)[:, None]
    distance = np.abs((offsets + first - middles + 0.5) * (1.0 / filter_scale))
    near = ((_A + 2) * distance - (_A + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * _A
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    weights[offsets + first >= last] = 0
    weights /= weights.sum(axis=0)
    # Half away from 0.
    fixed = np.trunc(weights * (1 << _FRACTION_BITS) + np.copysign(0.5, weights)).astype(np.int32)
    used = int(np.flatnonzero(fixed.any(axis=1))[-1]) + 1
    return first, fixed[:used]
