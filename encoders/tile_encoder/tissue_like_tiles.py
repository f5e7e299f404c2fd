"""Tiles that look enough like stained tissue to measure with: seeded, drawn in a few lines, no picture of a patient."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

# Optical density of haematoxylin and eosin in red, green, blue: Ruifrok and Johnston (2001).
_STAINS: Final = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))
# Structures of these many pixels: tissue architecture, cells, chromatin.
_SIZES_PX: Final = (64, 16, 4)


def tissue_like_tiles(count: int, side_px: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 RGB [count, side_px, side_px, 3]; the same arguments give the same tiles."""
    generator = torch.Generator().manual_seed(seed)
    fields = torch.stack([_field(count, side_px, size_px, generator) for size_px in _SIZES_PX])
    density = 0.6 * fields.sum(0).clamp(min=0)
    absorbed = torch.einsum("nsyx,sc->nyxc", density, torch.tensor(_STAINS))
    return (245 * torch.exp(-absorbed)).round().to(torch.uint8).numpy()


def _field(count: int, side_px: int, size_px: int, generator: torch.Generator) -> Tensor:
    """[count, 2, side_px, side_px]: a smooth random field per stain."""
    cells = side_px // size_px + 2
    coarse = torch.randn(count, 2, cells, cells, generator=generator)
    return functional.interpolate(coarse, (side_px, side_px), mode="bilinear", align_corners=False)
