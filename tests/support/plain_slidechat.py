"""SlideChat's LongNet as its public code runs it, written out in plain torch: no code of ours."""

from torch import Tensor
from torch.nn import functional


def plain_rows(longnet: dict[str, Tensor], features: Tensor) -> Tensor:
    """What the public code makes of each tile: its value for attention, four norms, two layers of two matrices."""

    def norm(name: str, rows: Tensor) -> Tensor:
        weight, bias = longnet[f"{name}.weight"], longnet[f"{name}.bias"]
        return functional.layer_norm(rows, rows.shape[-1:], weight, bias, 1e-5)

    def linear(name: str, rows: Tensor) -> Tensor:
        return rows @ longnet[f"{name}.weight"].T + longnet[f"{name}.bias"]

    for layer in ("layers.0", "layers.1"):
        value = linear(f"{layer}.self_attn.v_proj", norm(f"{layer}.self_attn_layer_norm", features))
        features = features + linear(f"{layer}.self_attn.out_proj", norm(f"{layer}.self_attn.inner_attn_ln", value))
        hidden = functional.gelu(linear(f"{layer}.ffn.fc1", norm(f"{layer}.final_layer_norm", features)))
        features = features + linear(f"{layer}.ffn.fc2", norm(f"{layer}.ffn.ffn_layernorm", hidden))
    return norm("layer_norm", features)
