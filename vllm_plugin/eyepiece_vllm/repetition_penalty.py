"""transformers' repetition penalty over the tokens of answers alone, for all rows of a batch at once, on the device.

A token that an answer holds already has its score divided by the penalty when it is positive, and multiplied when not,
once however often it was said. vLLM's own penalty counts the prompt too; the published evaluations generate from
embeddings, so transformers has no ids of the prompt. It knows nothing of vLLM, and nothing here waits for the device.
Shapes: L rows of logits over a vocabulary of V, S slots of T token ids, R rows to look at.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class PenaltyRow(NamedTuple):
    """An answer so far: `token_ids[slot, start:end]`, whose next token comes from `logits[row]`."""

    row: int
    slot: int
    start: int
    end: int
    penalty: float


def penalise_said_tokens(logits: torch.Tensor, token_ids: torch.Tensor, answers: Sequence[PenaltyRow]) -> None:
    """Changes the logits [L, V] of tokens that their answer holds, in place.

    `token_ids` [S, T] holds other things too, before `start` and from `end` on: ids beyond V, and what an earlier
    request left. They are read along and count for nothing. Every row is named once at most.
    """
    answers = [answer for answer in answers if answer.penalty != 1.0 and answer.end > answer.start]
    if not answers:
        return
    # float64 holds whole numbers up to 2**53: one table, one copy, from pinned memory where that lets the host go on.
    table = torch.tensor(answers, dtype=torch.float64, pin_memory=logits.device.type == "cuda")
    table = table.to(logits.device, non_blocking=True)
    rows, slots, starts, ends = table[:, :4].long().unbind(1)
    first, last = min(answer.start for answer in answers), max(answer.end for answer in answers)
    tokens = token_ids[:, first:last].index_select(0, slots).long()  # [R, W], one copy: the table may be the host's
    starts, ends = (starts - first)[:, None], (ends - first)[:, None]
    places = torch.arange(last - first, device=logits.device)[None]
    # What is not the answer's stands for its first token, so that all that is written of a token is the same.
    said = torch.where((places >= starts) & (places < ends), tokens, tokens.gather(1, starts))
    penalties, scores = table[:, 4:].float(), logits[rows[:, None], said]
    penalised = torch.where(scores < 0, scores * penalties, scores / penalties)
    logits[rows[:, None], said] = penalised.to(logits.dtype)
