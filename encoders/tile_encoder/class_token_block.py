"""The last transformer block for the class token alone, where nothing else of its output is read.

Attention needs keys and values of all tokens; the query, the projection and the MLP are computed for one token of 197
(2 % of the arithmetic of the published ViT-g). The same sums in the same precision: equal to the whole block within
rounding.

Everything that we assume of timm's transformer blocks is in this file and checked by exact class, so that another
model, or a timm that changes them under another name, gets its own full forward pass.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from encoders.tile_encoder.torchvision_ops import (
    Attention,
    Block,
    GluMlp,
    LayerNorm,
    LayerScale,
    Mlp,
    RmsNorm,
    SwiGLU,
    VisionTransformer,
)

# Both act on every token by itself, as must all that is computed for the class token only.
_MLPS = (Mlp, GluMlp, SwiGLU)
_NORMS = (nn.Identity, nn.LayerNorm, LayerNorm, RmsNorm)
_SCALES = (nn.Identity, LayerScale)


class ClassTokenBlock(nn.Module):
    """[B, N, C] → [B, 1, C]: row 0 of what `block` gives. For evaluation: dropout is left out."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        block: Any = self.block
        token: Tensor = tokens[:, :1] + block.ls1(_attend(block.attn, block.norm1(tokens)))
        rest: Tensor = block.ls2(block.mlp(block.norm2(token)))
        return token + rest


def read_class_token_only(model: nn.Module) -> bool:
    """Replaces the last block where that changes nothing but the cost; says whether it did."""
    if not _reads_class_token_only(model):
        return False
    blocks: Any = model.blocks
    blocks[-1] = ClassTokenBlock(blocks[-1])
    return True


def _attend(attention: Attention, tokens: Tensor) -> Tensor:
    """[B, N, C] → [B, 1, C]: the attention's output for token 0."""
    batch, count, _ = tokens.shape
    width, heads, head_width = attention.attn_dim, attention.num_heads, attention.head_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    query_bias, rest_bias = (None, None) if bias is None else (bias[:width], bias[width:])
    query = functional.linear(tokens[:, :1], weight[:width], query_bias)
    keys_values = functional.linear(tokens, weight[width:], rest_bias)
    q = query.reshape(batch, 1, heads, head_width).transpose(1, 2)
    k, v = keys_values.reshape(batch, count, 2, heads, head_width).permute(2, 0, 3, 1, 4).unbind(0)
    attended = functional.scaled_dot_product_attention(attention.q_norm(q), attention.k_norm(k), v)
    projected: Tensor = attention.proj(attention.norm(attended.transpose(1, 2).reshape(batch, 1, width)))
    return projected


def _reads_class_token_only(model: nn.Module) -> bool:
    # A subclass may read more tokens: the distilled ViT has two.
    if type(model) is not VisionTransformer or len(model.blocks) == 0:
        return False
    pools_token = model.global_pool == "token" and model.has_class_token and model.attn_pool is None
    return pools_token and type(model.norm) in _NORMS and _is_known(model.blocks[-1])


def _is_known(block: nn.Module) -> bool:
    if type(block) is not Block or type(block.attn) is not Attention or type(block.mlp) not in _MLPS:
        return False
    attention, mlp = block.attn, block.mlp
    norms = (block.norm1, block.norm2, attention.q_norm, attention.k_norm, attention.norm, mlp.norm)
    scales = (block.ls1, block.ls2)
    return (
        attention.gate is None
        and all(type(norm) in _NORMS for norm in norms)
        and all(type(scale) in _SCALES for scale in scales)
    )
