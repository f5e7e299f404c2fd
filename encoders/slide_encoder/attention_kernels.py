"""Softmax attention that also returns the log-sum-exp of its scores, by the best kernel a device has.

Public scaled_dot_product_attention hides the log-sum-exp, by which dilated attention mixes its branches; the
operators underneath return it. No mask, no dropout. Only the output is to be differentiated.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Qkv = tuple[Tensor, Tensor, Tensor]
# Output and log-sum-exp, as `attention_with_lse` gives them.
Attended = tuple[Tensor, Tensor]
# A kernel for many at once, in their order. They may be computed as they are asked for.
Attend = Callable[[Sequence[Qkv]], Iterable[Attended]]

# Scores held at once by the fallback, in elements: 256 MB of fp32.
FALLBACK_SCORES = 1 << 26


def attention_with_lse(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Output [B, H, M, d] and natural log-sum-exp fp32 [B, H, M] of q, k, v [B, H, M, d], d innermost.

    Other strides are free: the kernels read views without a copy. Scores are scaled by 1 / sqrt(d).
    """
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
        return out, lse.float()
    # The memory-efficient kernel takes fp32, fp16 and bf16 but wants rows of 16 bytes.
    if query.device.type == "cuda" and query.shape[-1] % 8 == 0:
        out, lse, _, _ = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)
        return out, lse[:, :, : query.shape[2]]  # padded along M to a multiple of 32
    return materialised_attention(query, key, value)


def materialised_attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The same in fp32 matrix products and chunks of queries, for every other device."""
    rows = max(1, FALLBACK_SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    chunks = [_attend(chunk, key, value) for chunk in torch.split(query, rows, dim=2)]
    return torch.cat([out for out, _ in chunks], dim=2), torch.cat([lse for _, lse in chunks], dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    scores = query.float() @ key.float().transpose(2, 3) * query.shape[-1] ** -0.5
    out = scores.softmax(dim=3) @ value.float()
    return out.to(value.dtype), scores.logsumexp(dim=3)
