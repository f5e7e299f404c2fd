"""ViT-256 of HIPT: a picture of 256 px to one vector, the lowest level of what a region is seen by.

The network of Chen et al., "Scaling Vision Transformers to Gigapixel Images via Hierarchical Self-Supervised Learning"
(CVPR 2022): DINO's ViT-S/16, which timm's blocks equal. What differs from timm's whole model is how the position rows,
learnt for 14 x 14 patches, are enlarged to 16 x 16 (`position_rows`).
"""

from typing import Final

import torch
from torch import Tensor, nn

from encoders.hierarchical.position_rows import position_rows
from encoders.hierarchical.vit_blocks import Norm, class_token, make_blocks
from encoders.tile_encoder.torchvision_ops import PatchEmbed

PATCH_PX: Final = 16
# Patches that the published position rows were learnt for, 224 px.
LEARNT_PATCHES: Final = 14 * 14


class Vit256(nn.Module):
    """uint8 RGB [B, H, W, 3] → [B, embed_dim] in the weights' dtype: the class token after the last norm.

    Published: 256 x 256 px; H and W have to be multiples of 16. Pixels are mapped to -1 … 1 in here.
    """

    def __init__(self, *, embed_dim: int = 384, depth: int = 12, num_heads: int = 6) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + LEARNT_PATCHES, embed_dim))
        self.patch_embed = PatchEmbed(img_size=None, patch_size=PATCH_PX, embed_dim=embed_dim)
        self.blocks = make_blocks(embed_dim, depth, num_heads)
        self.norm = Norm(embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class; ValueError for other pictures."""
        if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[3] != 3:
            raise ValueError(f"Pictures are uint8 [B, H, W, 3], not {pixels.dtype} {list(pixels.shape)}.")
        _, height, width, _ = pixels.shape
        if height % PATCH_PX or width % PATCH_PX or not height or not width:
            raise ValueError(f"The sides of a picture are multiples of {PATCH_PX} px, not {height} and {width}.")
        picture = pixels.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.5)
        patches = self.patch_embed(picture.to(self.cls_token.dtype))
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        rows = position_rows(self.pos_embed, (height // PATCH_PX, width // PATCH_PX))
        return class_token(tokens + rows, self.blocks, self.norm)
