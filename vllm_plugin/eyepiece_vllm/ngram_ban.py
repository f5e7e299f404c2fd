"""Bans n-grams that would repeat, for all rows of a batch at once, where the tokens are. It knows nothing of vLLM.

Nothing here waits for the device: whatever depends on lengths is computed from what the host knows.
Shapes: L rows of logits over a vocabulary of V, S slots of T token ids, R rows to look at.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class AnswerRow(NamedTuple):
    """An answer so far: `token_ids[slot, start:end]`, whose next token comes from `logits[row]`; n is `size`."""

    row: int
    slot: int
    start: int
    end: int
    size: int


def ban_repeated_ngrams(logits: torch.Tensor, token_ids: torch.Tensor, answers: Sequence[AnswerRow]) -> None:
    """Sets the logits [L, V] of tokens that would complete an n-gram of their answer again to -inf, in place.

    `token_ids` [S, T] holds other things too, before `start` and from `end` on: ids beyond V, and what an earlier
    request left. They are read along and count for nothing. Every row is named once at most.
    """
    # One token more than n - 1 has to be there before anything can repeat.
    answers = [answer for answer in answers if answer.size > 0 and answer.end - answer.start >= answer.size]
    if not answers:
        return
    rows, slots, starts, ends, sizes = _columns(answers, logits.device)
    first, last = min(answer.start for answer in answers), max(answer.end for answer in answers)
    longest = max(answer.size for answer in answers)
    tokens = token_ids[:, first:last].index_select(0, slots).long()  # [R, W], one copy: the table may be the host's
    starts, ends = (starts - first)[:, None], (ends - first)[:, None]
    places = torch.arange(last - first, device=logits.device)[None]
    # A token is banned when the n - 1 tokens before one of its places are the answer's last n - 1.
    banned = (places >= starts + sizes[:, None] - 1) & (places < ends)
    for back in range(1, longest):
        ending = tokens.gather(1, (ends - back).clamp_min(0))
        banned &= (tokens.roll(back, 1) == ending) | (sizes[:, None] <= back)
    penalty = torch.where(banned, -torch.inf, torch.inf).to(logits.dtype)
    followers = tokens.masked_fill(~banned, 0)  # a prompt's ids may lie beyond V
    looked_at = logits.index_select(0, rows)
    logits.index_copy_(0, rows, looked_at.scatter_reduce(1, followers, penalty, reduce="amin"))


def _columns(answers: Sequence[AnswerRow], device: torch.device) -> tuple[torch.Tensor, ...]:
    """One copy to the device, from pinned memory where that lets the host go on."""
    table = torch.tensor(answers, dtype=torch.int64, pin_memory=device.type == "cuda")
    return table.to(device, non_blocking=True).unbind(1)
