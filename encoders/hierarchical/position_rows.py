"""Learnt position rows of a ViT for a picture of another size, as DINO's and HIPT's public code enlarges them.

Not what timm does: the bicubic filter gets the *scale* (side + 0.1) / 14, not the size, and no antialiasing. The tenth
moves every sample, so rows made by size differ by far more than rounding.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def position_rows(rows: Tensor, grid: tuple[int, int]) -> Tensor:
    """[1, 1 + G·G, D], class token first → [1, 1 + h·w, D], row-major, for a grid of h x w tokens.

    Rows that were learnt for this very grid are given back as they are. In float32 whatever the weights are:
    interpolation in half precision moves every position.
    """
    height, width = grid
    learnt = math.isqrt(rows.shape[1] - 1)
    if (height, width) == (learnt, learnt):
        return rows
    square = rows[:, 1:].float().reshape(1, learnt, learnt, -1).permute(0, 3, 1, 2)
    scale = ((height + 0.1) / learnt, (width + 0.1) / learnt)
    enlarged = functional.interpolate(square, scale_factor=scale, mode="bicubic")
    # The output's size is the floor of size times scale: the tenth also keeps it from rounding down.
    return torch.cat([rows[:, :1], enlarged.flatten(2).transpose(1, 2).to(rows.dtype)], dim=1)
