"""ViT-4K of HIPT: the vectors of a region's pictures to one vector for the region.

The second level of Chen et al. (CVPR 2022): a small ViT whose patches are ViT-256's vectors, brought to its width by a
linear layer and an exact GELU. Positions as in ViT-256: learnt for 14 x 14, enlarged to the region's grid.
"""

import math

import torch
from torch import Tensor, nn

from encoders.hierarchical.position_rows import position_rows
from encoders.hierarchical.vit256 import LEARNT_PATCHES
from encoders.hierarchical.vit_blocks import Norm, class_token, make_blocks


class Vit4k(nn.Module):
    """[R, G·G, in_dim], the pictures of R square regions row by row → [R, embed_dim]: the class token after the norm.

    Published: G = 16 pictures of 256 px a side, 4096 px; any other G ≥ 1 is taken too.
    """

    def __init__(self, *, in_dim: int = 384, embed_dim: int = 192, depth: int = 6, num_heads: int = 6) -> None:
        super().__init__()
        self._in_dim = in_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + LEARNT_PATCHES, embed_dim))
        self.phi = nn.Sequential(nn.Linear(in_dim, embed_dim), nn.GELU())
        self.blocks = make_blocks(embed_dim, depth, num_heads)
        self.norm = Norm(embed_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class; ValueError for another shape."""
        grid = math.isqrt(pictures.shape[1]) if pictures.dim() == 3 else 0
        if not grid or grid**2 != pictures.shape[1] or pictures.shape[2] != self._in_dim:
            raise ValueError(
                f"The pictures of square regions are [R, G·G, {self._in_dim}], not {list(pictures.shape)}."
            )
        tokens = self.phi(pictures.to(self.cls_token.dtype))
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return class_token(tokens + position_rows(self.pos_embed, (grid, grid)), self.blocks, self.norm)
