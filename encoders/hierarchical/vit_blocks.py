"""Transformer blocks as DINO's ViTs have them, under timm's names, which are DINO's."""

from typing import Any, Final

from torch import Tensor, nn

from encoders.tile_encoder.class_token_block import ClassTokenBlock
from encoders.tile_encoder.torchvision_ops import Block

_NORM_EPS: Final = 1e-6


class Norm(nn.LayerNorm):
    """Layer norm over the last axis with DINO's eps, a tenth of torch's."""

    def __init__(self, width: int, **placement: Any) -> None:
        super().__init__(width, eps=_NORM_EPS, **placement)


def make_blocks(width: int, depth: int, num_heads: int, *, layer_scale: bool = False) -> nn.ModuleList:
    """Pre-norm blocks with exact GELU and a four times wider hidden layer; DINOv2's scale what each half adds."""
    init_values = 1.0 if layer_scale else None
    return nn.ModuleList(
        Block(width, num_heads, qkv_bias=True, init_values=init_values, norm_layer=Norm) for _ in range(depth)
    )


def class_token(tokens: Tensor, blocks: nn.ModuleList, norm: nn.Module) -> Tensor:
    """[B, N, D], class token first → [B, D]: row 0 after the blocks (one or more) and `norm`. For evaluation."""
    for block in blocks[:-1]:
        tokens = block(tokens)
    # Made here, not kept: as a part of the model it would change the names of the weights.
    token: Tensor = norm(ClassTokenBlock(blocks[-1])(tokens))
    return token[:, 0]
