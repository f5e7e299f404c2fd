"""The cells of a patch to one vector: the blocks of DINOv2's ViT-S/14 over cell tokens, without positions.

Weights of natural pictures, as MLLM-HWSI's public code takes them from facebookresearch/dinov2 (Oquab et al., 2023);
timm's blocks with layer scale equal them. No position row is added to anything, not even to the class token, so the
order of the cells does not matter.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from encoders.hierarchical.vit_blocks import Norm, make_blocks

# Tokens of one pass, padding included: bounds the four times wider hidden layer to 100 MB at the published width.
PASS_TOKENS: Final = 16384


class CellFusion(nn.Module):
    """P patches of [K, embed_dim] cells each → float32 [P, embed_dim]: the class token after the norm.

    A patch without cells is zeros: it does not go through the blocks.
    """

    def __init__(self, *, embed_dim: int = 384, depth: int = 12, num_heads: int = 6) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.blocks = make_blocks(embed_dim, depth, num_heads, layer_scale=True)
        self.norm = Norm(embed_dim)

    def forward(self, patches: Sequence[Tensor]) -> Tensor:
        """See the class; ValueError for cells of another width."""
        embed_dim = self.cls_token.shape[2]
        for cells in patches:
            if cells.dim() != 2 or cells.shape[1] != embed_dim:
                raise ValueError(f"The cells of a patch are [K, {embed_dim}], not {list(cells.shape)}.")
        fused = torch.zeros(len(patches), embed_dim, device=self.cls_token.device)
        # Patches with about as many cells go together, so that little of a pass is padding.
        waiting = sorted((i for i, cells in enumerate(patches) if len(cells)), key=lambda i: -len(patches[i]))
        while waiting:
            count = max(1, PASS_TOKENS // (1 + len(patches[waiting[0]])))
            now, waiting = waiting[:count], waiting[count:]
            fused[now] = self._fuse([patches[i] for i in now]).float()
        return fused

    def _fuse(self, patches: list[Tensor]) -> Tensor:
        """Patches with one cell or more, together → [P, embed_dim]; padding is seen by no token."""
        cells = pad_sequence([patch.to(self.cls_token) for patch in patches], batch_first=True)
        tokens = torch.cat([self.cls_token.expand(len(cells), -1, -1), cells], dim=1)
        counts = torch.tensor([1 + len(patch) for patch in patches], device=tokens.device)
        there = torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None]
        mask = None if bool((counts == tokens.shape[1]).all()) else there[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, attn_mask=mask)
        normed: Tensor = self.norm(tokens[:, 0])
        return normed
