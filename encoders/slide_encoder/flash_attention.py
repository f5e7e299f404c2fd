"""The package flash-attn as a kernel of dilated attention, where an operator has installed it and asks for it.

Its `varlen` function attends within many sequences of any lengths in one call, so all segments and head groups of a
branch go together; the price is that they are copied next to each other first. Nothing needs it: what it brings is in
docs/decisions.

Shapes as in `encoders.slide_encoder.dilated_attention`; a sequence is one segment of one head group.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Final

import torch
from torch import Tensor

from encoders.slide_encoder.attention_kernels import Attend, Attended, Qkv
from model_store.errors import ModelError

# flash_attn.flash_attn_varlen_func.
Varlen = Callable[..., Any]

_HALF: Final = (torch.float16, torch.bfloat16)
_INSTEAD: Final = "set EYEPIECE_SLIDE_ATTENTION to torch"


def load_flash_attention(device: torch.device, dtype: torch.dtype) -> Attend:
    """The kernel for a slide encoder on this device with matrix products in this dtype.

    Raises ModelError where flash-attn is not installed or cannot compute that.
    """
    if device.type != "cuda" or dtype not in _HALF:
        raise ModelError(f"flash-attn computes in float16 or bfloat16 on an NVIDIA GPU only; {_INSTEAD}.")
    try:
        varlen: Varlen = importlib.import_module("flash_attn").flash_attn_varlen_func
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"The package flash-attn (2.6 or newer) is not installed for this torch: install it, or {_INSTEAD}."
        ) from error
    return partial(attend_in_one_call, varlen)


def attend_in_one_call(varlen: Varlen, together: Sequence[Qkv]) -> Iterable[Attended]:
    """What `attention_with_lse` gives for each; one call for all that have as many heads."""
    results: dict[int, Attended] = {}
    for heads in {query.shape[1] for query, _, _ in together}:
        members = [number for number, (query, _, _) in enumerate(together) if query.shape[1] == heads]
        attended = _attend_same_heads(varlen, [together[number] for number in members])
        results.update(zip(members, attended, strict=True))
    return [results[number] for number in range(len(together))]


def _attend_same_heads(varlen: Varlen, together: Sequence[Qkv]) -> Iterable[Attended]:
    lengths = [query.shape[2] for query, _, _ in together for _ in range(len(query))]
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=together[0][0].device)
    query, key, value = (_packed(tensors) for tensors in zip(*together, strict=True))
    out, lse, *_ = varlen(query, key, value, ends, ends, max(lengths), max(lengths), return_attn_probs=True)
    if lse.shape != query.shape[1::-1]:
        raise ModelError(f"flash-attn 2.6 or newer is needed: this one gives its sums in another form; {_INSTEAD}.")
    rows = [len(query) * query.shape[2] for query, _, _ in together]
    parts = zip(together, out.split(rows), lse.float().split(rows, dim=1), strict=True)
    return [(_unpacked(part, query), _unpacked_lse(part_lse, query)) for (query, _, _), part, part_lse in parts]


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    """[B, H, M, d] each, any B and M → [all rows, H, d], sequence after sequence."""
    return torch.cat([tensor.transpose(1, 2).flatten(0, 1) for tensor in tensors])


def _unpacked(rows: Tensor, like: Tensor) -> Tensor:
    """[B · M, H, d] → [B, H, M, d]."""
    return rows.view(len(like), like.shape[2], *rows.shape[1:]).transpose(1, 2)


def _unpacked_lse(rows: Tensor, like: Tensor) -> Tensor:
    """[H, B · M] → [B, H, M]."""
    return rows.reshape(len(rows), len(like), like.shape[2]).transpose(0, 1)
