"""LongNet's dilated attention, exactly as the published checkpoints were trained with it.

A branch cuts the tokens into segments and lets each head attend to every ratio-th token of its segment, groups
of heads starting at different offsets. The branches' outputs are mixed per (token, head) by a softmax over their
log-sum-exps. Two things are easily lost, and the weights depend on them:

- Segments are padded with zero keys *after* the projections and nothing masks them: each adds exp(0) = 1 to
  the denominator and nothing to the numerator.
- A segment length that is no multiple of the ratio shifts later segments (`padded_branch`).

Shapes: T tokens (class token first), H heads, d channels a head, n segments of g tokens, m slots, r ratio,
hp = ceil(H / r) heads a group.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from encoders.slide_encoder.attention_kernels import Attend, Attended, Qkv, attention_with_lse

# log-sum-exp of a (token, head) that a branch does not cover: finite, so two of them merge without NaN.
UNCOVERED = -1e8


@dataclass(frozen=True)
class Branch:
    """Segments of at most `segment` tokens, of which a head sees every `ratio`-th."""

    segment: int
    ratio: int

    def is_misaligned(self, tokens: int) -> bool:
        """Whether a segment's last slots run beyond it into a next one."""
        return tokens > self.segment and self.segment % self.ratio != 0


@dataclass(frozen=True)
class Span:
    """Equal segments that one strided view reaches; `missing_keys` of each are counted but not computed."""

    first_token: int
    segments: int
    segment_tokens: int
    slots: int
    missing_keys: int


@dataclass(frozen=True)
class HeadGroups:
    """Equal groups of adjacent heads; group j of them starts at token offset `first_offset` + j."""

    first_offset: int
    first_head: int
    groups: int
    group_heads: int


def make_branches(max_wsi_size: int, tile_size: int, ratios: tuple[int, ...]) -> tuple[Branch, ...]:
    """One branch per ratio, lengths spaced evenly in log2 from 1024 to the tiles of the largest slide.

    The formula and its truncations are the published ones; 262144 px with tiles of 256 px gives 1024, 5792,
    32768, 185363, 1048576.
    """
    max_tiles = (max_wsi_size // tile_size) ** 2
    if max_tiles < 1:
        raise ValueError(f"max_wsi_size {max_wsi_size} must be at least tile_size {tile_size}.")
    if 1 not in ratios or min(ratios) < 1:
        raise ValueError("dilated_ratios must be positive and include 1: only that branch covers every token.")
    lengths = np.power(2, np.linspace(np.log2(1024), int(np.log2(max_tiles)), len(ratios))).astype(int)
    return tuple(Branch(int(length), ratio) for length, ratio in zip(lengths, ratios, strict=True))


def buffer_rows(tokens: int, branches: tuple[Branch, ...]) -> int:
    """Rows that q, k and v need so that the last slot of every head group lies inside, on zeros."""
    return tokens + max(branch.ratio for branch in branches) - 1


def one_after_another(together: Sequence[Qkv]) -> Iterator[Attended]:
    """torch's own kernels, on views, each result computed when it is asked for: only one is held."""
    return (attention_with_lse(*qkv) for qkv in together)


def dilated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tokens: int,
    branches: tuple[Branch, ...],
    attend: Attend = one_after_another,
) -> Tensor:
    """[buffer_rows, H, d] each, zero from row `tokens` on → fp32 [tokens, H, d].

    Differentiable; as in the published training, no gradient flows through the mixing weights. `attend` computes the
    aligned branches when nothing is to be differentiated.
    """
    if torch.is_grad_enabled() and query.requires_grad:
        return _mixed_out_of_place(query[:tokens], key[:tokens], value[:tokens], branches)
    return _mixed_in_place(query, key, value, tokens, branches, attend)


def padded_branch(query: Tensor, key: Tensor, value: Tensor, branch: Branch) -> tuple[Tensor, Tensor]:
    """One branch with its padding in memory: [T, H, d] each → output [T, H, d], log-sum-exp fp32 [T, H].

    Segments are laid end to end by their slots, m · r tokens, not by g. Where those differ, segment i lands
    i · (m · r - g) tokens late and the tail is cut: a flaw of the published code that its weights were trained
    with, so it is kept. So is its rule that a log-sum-exp of exactly 0 means "not covered", which acts on padding
    in segments of a single slot.
    """
    tokens, heads, channels = query.shape
    offset, head = _head_offsets(heads, branch.ratio, query.device)
    # [n, m, r, H, d] → [n, m, H, d]: each head keeps its own offset of the r tokens of a slot.
    q, k, v = (_into_slots(x, branch)[:, :, offset, head].transpose(1, 2) for x in (query, key, value))
    out, lse = attention_with_lse(q, k, v)
    n, m = q.shape[0], q.shape[2]
    out_slots = out.new_zeros(n, m, branch.ratio, heads, channels)
    out_slots[:, :, offset, head] = out.transpose(1, 2)
    lse_slots = lse.new_full((n, m, branch.ratio, heads), UNCOVERED)
    lse_slots[:, :, offset, head] = lse.masked_fill(lse == 0, UNCOVERED).transpose(1, 2)
    return out_slots.flatten(0, 2)[:tokens], lse_slots.flatten(0, 2)[:tokens]


def _head_offsets(heads: int, ratio: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Offset at which each head starts, and the head's own number: int64 [H] each."""
    head = torch.arange(heads, device=device)
    return head // math.ceil(heads / ratio), head


def _into_slots(x: Tensor, branch: Branch) -> Tensor:
    """[T, H, d] → [n, m, r, H, d], zero-padded to whole segments, each segment to whole slots."""
    _, heads, channels = x.shape
    segment = min(branch.segment, len(x))
    segments = functional.pad(x, (0, 0, 0, 0, 0, -len(x) % segment)).view(-1, segment, heads, channels)
    slots = functional.pad(segments, (0, 0, 0, 0, 0, -segment % branch.ratio))
    return slots.view(len(slots), -1, branch.ratio, heads, channels)


def _mixed_out_of_place(query: Tensor, key: Tensor, value: Tensor, branches: tuple[Branch, ...]) -> Tensor:
    outs, lses = zip(*(padded_branch(query, key, value, branch) for branch in branches), strict=True)
    weights = torch.stack(lses).detach().softmax(dim=0)
    return torch.stack([out.float() * weight[..., None] for out, weight in zip(outs, weights, strict=True)]).sum(0)


def _mixed_in_place(
    query: Tensor, key: Tensor, value: Tensor, tokens: int, branches: tuple[Branch, ...], attend: Attend
) -> Tensor:
    """The mix as a running one: branch after branch is merged into one output through views, without copies."""
    total = torch.zeros_like(query, dtype=torch.float32)
    total_lse = total.new_full((*total.shape[:2], 1), UNCOVERED)
    for branch in branches:
        if branch.is_misaligned(tokens):
            out, lse = padded_branch(query[:tokens], key[:tokens], value[:tokens], branch)
            _merge(total[:tokens], total_lse[:tokens], out, lse[..., None])
            continue
        pieces = [
            piece
            for span, heads in product(spans(tokens, branch), head_groups(query.shape[1], branch.ratio))
            for piece in _pieces((query, key, value, total, total_lse), span, heads, branch.ratio)
        ]
        attended = attend([(q, k, v) for q, k, v, *_ in (piece.views for piece in pieces)])
        for piece, (out, lse) in zip(pieces, attended, strict=True):
            _, _, _, piece_total, piece_lse = piece.views
            _merge(piece_total, piece_lse, out, lse[..., None], piece.missing_keys)
    return total[:tokens]


def spans(tokens: int, branch: Branch) -> list[Span]:
    """The whole segments of an aligned branch, then the rest; a short slide is one segment of its own length."""
    if tokens <= branch.segment:
        return [Span(0, 1, tokens, math.ceil(tokens / branch.ratio), missing_keys=0)]
    whole, rest = divmod(tokens, branch.segment)
    slots, rest_slots = branch.segment // branch.ratio, math.ceil(rest / branch.ratio)
    found = [Span(0, whole, branch.segment, slots, missing_keys=0)]
    if rest:
        found.append(Span(whole * branch.segment, 1, branch.segment, rest_slots, slots - rest_slots))
    return found


def head_groups(heads: int, ratio: int) -> list[HeadGroups]:
    """The whole groups of ceil(heads / ratio) heads, then the smaller last; offsets beyond it have no head."""
    group_heads = math.ceil(heads / ratio)
    whole, rest = divmod(heads, group_heads)
    found = [HeadGroups(0, 0, whole, group_heads)]
    if rest:
        found.append(HeadGroups(whole, heads - rest, 1, rest))
    return found


def dilated_view(x: Tensor, span: Span, heads: HeadGroups, ratio: int) -> Tensor:
    """[rows, H, d] → view [segments, groups, group heads, slots, d] of what is attended together."""
    row, head, channel = x.stride()
    size = (span.segments, heads.groups, heads.group_heads, span.slots, x.shape[2])
    stride = (span.segment_tokens * row, row + heads.group_heads * head, head, ratio * row, channel)
    first = (span.first_token + heads.first_offset) * row + heads.first_head * head
    return x.as_strided(size, stride, x.storage_offset() + first)


@dataclass(frozen=True)
class _Piece:
    """Views [B, group heads, slots, d] of q, k, v and of the total and its log-sum-exp, attended together."""

    views: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    missing_keys: int


def _pieces(tensors: Iterable[Tensor], span: Span, heads: HeadGroups, ratio: int) -> list[_Piece]:
    """Kernels take two of the three batch axes of `dilated_view`."""
    views = [dilated_view(x, span, heads, ratio) for x in tensors]
    loop_axis = 0 if span.segments <= heads.groups else 1
    return [
        _Piece((query, key, value, total, total_lse), span.missing_keys)
        for query, key, value, total, total_lse in zip(*(view.unbind(loop_axis) for view in views), strict=True)
    ]


def _merge(total: Tensor, total_lse: Tensor, out: Tensor, lse: Tensor, missing_keys: int = 0) -> None:
    """Add an attention result to the running softmax mix, in place; a missing zero key weighs exp(0), adds 0."""
    merged_lse = torch.logaddexp(total_lse, lse)
    if missing_keys:
        merged_lse = torch.logaddexp(merged_lse, merged_lse.new_full((), math.log(missing_keys)))
    total.mul_((total_lse - merged_lse).exp_()).addcmul_(out.float(), (lse - merged_lse).exp_())
    total_lse.copy_(merged_lse)
