"""CONCH's image tower: a picture to a vector, in the space that CONCH shares with reports or just before it.

Lu et al., "A visual-language foundation model for computational pathology" (Nature Medicine 2024), `conch_ViT-B-16`:
a ViT-B/16 at 448 px, of whose tokens one learnt query makes a vector by attention. The second, captioning query and
the text tower of the published checkpoint give nothing that is used here. MLLM-HWSI's pictures and the tile encoder of
kind `conch` are both of it.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.hierarchical.enlarge import enlarge
from encoders.tile_encoder.torchvision_ops import VisionTransformer

INPUT_PX: Final = 448
EMBED_DIM: Final = 512
_POOL_HEADS: Final = 8
# Those of OpenAI's CLIP.
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_STD: Final = (0.26862954, 0.26130258, 0.27577711)


class AttentionPool(nn.Module):
    """One learnt query over all tokens, class token included; only keys and values are normalised tokens."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, embed_dim))
        self.attn = nn.MultiheadAttention(embed_dim, _POOL_HEADS, kdim=width, vdim=width, batch_first=True)
        self.ln_q = nn.LayerNorm(embed_dim)
        self.ln_k = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, width] → [B, embed_dim]."""
        tokens = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)
        pooled, _ = self.attn(query, tokens, tokens, need_weights=False)
        row: Tensor = pooled[:, 0]
        return row


class ConchTower(nn.Module):
    """All weights of the image tower; sizes are published where they are left out."""

    def __init__(
        self,
        *,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        embed_dim: int = EMBED_DIM,
        input_px: int = INPUT_PX,
    ) -> None:
        super().__init__()
        self.input_px = input_px
        self.trunk = VisionTransformer(
            img_size=input_px,
            patch_size=16,
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            num_classes=0,
            weight_init="skip",  # all weights are a checkpoint's
        )
        self.attn_pool_contrast = AttentionPool(width, embed_dim)
        self.ln_contrast = nn.LayerNorm(embed_dim)
        self.proj_contrast = nn.Parameter(torch.zeros(embed_dim, embed_dim))

    def pooled(self, picture: Tensor) -> Tensor:
        """Normalised pictures [B, 3, input_px, input_px] → [B, embed_dim], before the projection."""
        row: Tensor = self.ln_contrast(self.attn_pool_contrast(self.trunk.forward_features(picture)))
        return row

    def projected(self, picture: Tensor) -> Tensor:
        """The same behind the projection, of any length."""
        return self.pooled(picture) @ self.proj_contrast


class ConchImage(ConchTower):
    """uint8 RGB [B, S, S, 3] → float32 [B, embed_dim], rows of length 1 (`encode_image` of the public code).

    Pictures are enlarged to `input_px`, each for itself: at the border of a crop the pixels beyond it have no part.
    Published: S = 256, level 0.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class; ValueError for other pictures."""
        if pixels.dim() != 4 or pixels.shape[1] != pixels.shape[2] or pixels.shape[3] != 3:
            raise ValueError(f"Pictures are square RGB, uint8 [B, S, S, 3], not {list(pixels.shape)}.")
        picture = enlarge(pixels, self.input_px).permute(0, 3, 1, 2).float().div_(255)
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (_MEAN, _STD))
        picture = picture.sub_(mean).div_(std).to(self.proj_contrast.dtype)
        return functional.normalize(self.projected(picture).float(), dim=-1)
