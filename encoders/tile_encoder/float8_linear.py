"""Matrix products in 8 bits (float8 e4m3) with one scale per row of either matrix, found as the rows come.

Which products: those of the inner blocks. The patch embedding, the first and the last block stay as they are because
their errors are largest, and the MLP's second matrix because of its inputs' outliers.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import ScalingType

from model_store.errors import ModelError

_FLOAT8: Final = torch.float8_e4m3fn
_LARGEST: Final = torch.finfo(_FLOAT8).max
# A row of zeros must not divide by zero.
_SMALLEST_SCALE: Final = 1e-12
# scaled_mm on CUDA takes only such widths.
_WIDTH_MULTIPLE: Final = 16


class Float8Linear(nn.Module):
    """Replaces a linear layer; input and output keep their dtype."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = _in_float8(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale.t())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        rows, scale = _in_float8(tokens.flatten(0, -2))
        # bfloat16 whatever the model's dtype: the one output that every kernel behind scaled_mm offers for row-wise
        # scales, and it holds 4 bits more than the factors. The bias is added in the model's dtype.
        product = functional.scaled_mm(
            rows,
            self.weight.t(),
            scale,
            ScalingType.RowWise,
            self.weight_scale,
            ScalingType.RowWise,
            output_dtype=torch.bfloat16,
            use_fast_accum=tokens.is_cuda,
        )
        product = product.to(tokens.dtype).reshape(*tokens.shape[:-1], -1)
        return product if self.bias is None else product + self.bias


def multiply_in_float8(model: nn.Module) -> None:
    """Replaces the linear layers of the inner blocks; raises ModelError for a model that has none to replace."""
    blocks = list(getattr(model, "blocks", []))
    replaced = sum(_replace_in(block) for block in blocks[1:-1])
    if not replaced:
        raise ModelError('The tile encoder has no layer that could multiply in 8 bits; set matmul = "dtype".')


def _replace_in(block: nn.Module) -> int:
    names = [name for name, layer in block.named_modules() if isinstance(layer, nn.Linear) and _fits(name, layer)]
    for name in names:
        block.set_submodule(name, Float8Linear(block.get_submodule(name)))  # type: ignore[arg-type]
    return len(names)


def _fits(name: str, layer: nn.Linear) -> bool:
    widths = (layer.in_features, layer.out_features)
    return not name.endswith("fc2") and all(width % _WIDTH_MULTIPLE == 0 for width in widths)


def _in_float8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """[M, K] → [M, K] in float8 and float32 scales [M, 1] that give the rows back."""
    scale = (rows.abs().amax(1, keepdim=True).float() / _LARGEST).clamp(min=_SMALLEST_SCALE)
    return (rows.float() / scale).clamp(-_LARGEST, _LARGEST).to(_FLOAT8), scale
