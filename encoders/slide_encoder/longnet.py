"""LongNetViT, Prov-GigaPath's slide encoder: tile features and coordinates in, contextual tokens out.

Exact to the published model (names and values), in plain PyTorch, for CPU and any GPU; one slide per call,
because padding a batch would change the model's result. The residual stream, layer norms and softmaxes are
fp32 in every mode; `use_matmul_dtype` makes the matrix products half precision. Dropout and drop path of the
published training are not here: this is for inference, or fine-tuning without them.

Shapes: L tiles, T = L + 1 tokens (class token first), D embed_dim, H heads.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.errors import NoTissue
from encoders.slide_encoder.attention_kernels import Attend
from encoders.slide_encoder.dilated_attention import (
    Branch,
    buffer_rows,
    dilated_attention,
    make_branches,
    one_after_another,
)
from encoders.slide_encoder.outputs import Keep, SlideStates
from encoders.slide_encoder.positions import grid_index, position_rows

# Published: 1e-5 in the encoder, sub-norms included; 1e-6 in the outer norm alone.
ENCODER_NORM_EPS = 1e-5
OUTER_NORM_EPS = 1e-6

# Each token attends to itself alone, which gives its value whatever query and key are (docs/decisions/0044).
TOKENS_ALONE = Branch(1, 1)

# Rows per chunk of everything that acts on one token alone: bounds the 4-times-wider hidden layer in memory.
CHUNK_TOKENS = 2048


class Fp32LayerNorm(nn.LayerNorm):
    """Layer norm in fp32, whatever its parameters' type."""

    def forward(self, input: Tensor) -> Tensor:
        """[…, D] → fp32 [..., D]."""
        return functional.layer_norm(
            input.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )


class CastingLinear(nn.Linear):
    """Linear layer that computes in its weights' type, whatever it is given."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] → [..., out] in the weights' type."""
        return functional.linear(input.to(self.weight.dtype), self.weight, self.bias)


class PatchEmbed(nn.Module):
    """Tile features to tokens."""

    def __init__(self, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = CastingLinear(in_chans, embed_dim)

    def forward(self, tile_features: Tensor) -> Tensor:
        """[L, in_chans] → fp32 [L, D]."""
        tokens: Tensor = self.proj(tile_features)
        return tokens.float()


class DilatedSelfAttention(nn.Module):
    """Projections and sub-norm around `dilated_attention`."""

    def __init__(self, embed_dim: int, num_heads: int, branches: tuple[Branch, ...]) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.branches = branches
        self.attend: Attend = one_after_another
        self.q_proj = CastingLinear(embed_dim, embed_dim)
        self.k_proj = CastingLinear(embed_dim, embed_dim)
        self.v_proj = CastingLinear(embed_dim, embed_dim)
        self.out_proj = CastingLinear(embed_dim, embed_dim)
        self.inner_attn_ln = Fp32LayerNorm(embed_dim, eps=ENCODER_NORM_EPS)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Fp32 [T, D] → x + attention of norm(x), in place of x if nothing is to be differentiated.

        The norm acts in here, on chunks, so that the normalised tokens are never held as a whole.
        """
        out = place_for_result(x)
        if self.branches == (TOKENS_ALONE,):
            for rows in chunks(len(x)):
                value = self.v_proj(norm(x[rows])).float()
                out[rows] = x[rows] + self.out_proj(self.inner_attn_ln(value)).float()
            return out
        query, key, value = self._project(x, norm)
        mixed = dilated_attention(query, key, value, len(x), self.branches, self.attend).flatten(1)
        for rows in chunks(len(x)):
            out[rows] = x[rows] + self.out_proj(self.inner_attn_ln(mixed[rows])).float()
        return out

    def _project(self, x: Tensor, norm: nn.Module) -> tuple[Tensor, ...]:
        """Queries, keys, values [rows, H, d]; rows from T on are zero: not the bias that a projection makes of 0."""
        height, width = buffer_rows(len(x), self.branches), x.shape[1]
        buffer = x.new_zeros(3, height, width, dtype=self.q_proj.weight.dtype)
        for rows in chunks(len(x)):
            normed = norm(x[rows])
            for number, projection in enumerate((self.q_proj, self.k_proj, self.v_proj)):
                buffer[number, rows] = projection(normed)
        return buffer.view(3, height, self.num_heads, -1).unbind(0)


class FeedForward(nn.Module):
    """Two linear layers with the exact GELU and a sub-norm between."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = CastingLinear(embed_dim, hidden_dim)
        self.fc2 = CastingLinear(hidden_dim, embed_dim)
        self.ffn_layernorm = Fp32LayerNorm(hidden_dim, eps=ENCODER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[T, D] → fp32 [T, D]."""
        hidden = functional.gelu(self.fc1(x).float())
        out: Tensor = self.fc2(self.ffn_layernorm(hidden))
        return out.float()


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer; `final_layer_norm` is, by its published name, the one before the feed-forward."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, branches: tuple[Branch, ...]) -> None:
        super().__init__()
        self.self_attn = DilatedSelfAttention(embed_dim, num_heads, branches)
        self.self_attn_layer_norm = Fp32LayerNorm(embed_dim, eps=ENCODER_NORM_EPS)
        self.ffn = FeedForward(embed_dim, hidden_dim)
        self.final_layer_norm = Fp32LayerNorm(embed_dim, eps=ENCODER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """fp32 [T, D] → fp32 [T, D], in place of x if nothing is to be differentiated."""
        x = self.self_attn(x, self.self_attn_layer_norm)
        out = place_for_result(x)
        for rows in chunks(len(x)):
            out[rows] = x[rows] + self.ffn(self.final_layer_norm(x[rows]))
        return out


class Encoder(nn.Module):
    """The layers and the encoder's own final norm, under their published names."""

    def __init__(
        self, depth: int, embed_dim: int, num_heads: int, hidden_dim: int, branches: tuple[Branch, ...]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(embed_dim, num_heads, hidden_dim, branches) for _ in range(depth))
        self.layer_norm = Fp32LayerNorm(embed_dim, eps=ENCODER_NORM_EPS)

    def forward(self, embeddings: Tensor, keep: Keep) -> SlideStates:
        """Embeddings fp32 [T, D] → states. Without autograd the embeddings are overwritten, to hold one state less."""
        x = embeddings
        earlier: list[Tensor] = []
        for layer in self.layers:
            if keep == "all":
                earlier.append(x.clone())
            x = layer(x)
        return SlideStates(states=[*earlier, x], encoder_out=self.layer_norm(x), keep=keep)


class LongNetViT(nn.Module):
    """The slide encoder; its state dict has the published names (247 tensors for 12 layers).

    `max_wsi_size` and `tile_size` (level-0 pixels) fix the attention's segment lengths when built; the published
    checkpoint uses 262144 and 256. `tile_size` is also the default stride of the position grid.
    """

    def __init__(  # noqa: PLR0913 - the published model's arguments
        self,
        *,
        in_chans: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        slide_ngrids: int = 1000,
        tile_size: int = 256,
        max_wsi_size: int = 262144,
        dilated_ratios: tuple[int, ...] = (1, 2, 4, 8, 16),
    ) -> None:
        super().__init__()
        if embed_dim % num_heads or embed_dim % 4:
            raise ValueError(f"embed_dim {embed_dim} must be a multiple of num_heads {num_heads} and of 4.")
        self.slide_ngrids = slide_ngrids
        self.tile_size = tile_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.patch_embed = PatchEmbed(in_chans, embed_dim)
        branches = make_branches(max_wsi_size, tile_size, tuple(dilated_ratios))
        self.encoder = Encoder(depth, embed_dim, num_heads, int(embed_dim * mlp_ratio), branches)
        self.norm = Fp32LayerNorm(embed_dim, eps=OUTER_NORM_EPS)

    def forward(
        self, tile_features: Tensor, coords: Tensor, keep: Keep = "last", *, tile_size: float | None = None
    ) -> SlideStates:
        """One slide: features [L, in_chans] and level-0 (x, y) of the tiles [L, 2], in raster order.

        `tile_size` is this slide's tile stride in level-0 pixels (512 for a 40x slide tiled at 20x); it moves
        positions only, never segment lengths. The coordinates may be on the CPU whatever the model's device is, and are
        best left there. Raises NoTissue for L = 0, CoordinatesOutOfRange for tiles outside
        the grid, ValueError for wrong shapes.
        """
        self._check_shapes(tile_features, coords)
        stride = self.tile_size if tile_size is None else tile_size
        states: SlideStates = self.encoder(self._embed(tile_features, coords, stride), keep)
        return states

    def _embed(self, tile_features: Tensor, coords: Tensor, tile_size: float) -> Tensor:
        """Tokens fp32 [T, D] before the first layer; the class token's position row is zero."""
        index = grid_index(coords, tile_size, self.slide_ngrids).to(tile_features.device)
        tokens = self.patch_embed(tile_features)
        tokens = tokens + position_rows(index, self.slide_ngrids, tokens.shape[1])
        return torch.cat([self.cls_token[0].float(), tokens])

    def use_matmul_dtype(self, dtype: torch.dtype) -> None:
        """Cast the linear layers and nothing else. fp16 rounds 8 times finer than bf16 but may overflow."""
        use_matmul_dtype(self, dtype)

    def use_attention(self, attend: Attend) -> None:
        """Another kernel of attention, for inference."""
        use_attention(self, attend)

    def _check_shapes(self, tile_features: Tensor, coords: Tensor) -> None:
        in_chans = self.patch_embed.proj.in_features
        if tile_features.dim() != 2 or tile_features.shape[1] != in_chans:
            raise ValueError(f"Tile features must be [L, {in_chans}], not {list(tile_features.shape)}.")
        if coords.shape != (len(tile_features), 2):
            raise ValueError(f"Coordinates must be [{len(tile_features)}, 2], not {list(coords.shape)}.")
        if len(tile_features) == 0:
            raise NoTissue("There are no tiles to encode; send at least one.")


def use_matmul_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the linear layers of a LongNet and nothing else."""
    for module in model.modules():
        if isinstance(module, CastingLinear):
            module.to(dtype)


def use_attention(model: nn.Module, attend: Attend) -> None:
    """Give all layers of a LongNet another kernel of attention, for inference."""
    for module in model.modules():
        if isinstance(module, DilatedSelfAttention):
            module.attend = attend


def place_for_result(x: Tensor) -> Tensor:
    """Where a residual step writes: x itself, which the caller gives up, but a new tensor for autograd."""
    return torch.empty_like(x) if torch.is_grad_enabled() else x


def chunks(tokens: int) -> Iterator[slice]:
    """Rows 0 … tokens - 1 in order, CHUNK_TOKENS at a time."""
    return (slice(first, min(first + CHUNK_TOKENS, tokens)) for first in range(0, tokens, CHUNK_TOKENS))
