"""Pairs as token ids: a conversation that ends with the chosen answer, and the same with the rejected one.

The text is what the chat template makes of a conversation when it is served, as in training.language_model.tokenized.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.language_model.demo_tokenizer import EOS
from training.language_model.tokenized import ASSISTANT
from training.preference.pairs import PreferencePair

# As in tokenized.py: few shapes.
_LENGTH_STEP = 32


@dataclass(frozen=True)
class TokenizedPair:
    """Ids of the prompt, and of either answer with the token that ends it."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longer of both conversations."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def tokenize_pair(tokenizer: Tokenizer, pair: PreferencePair, opening: str) -> TokenizedPair:
    """`opening` is everything before the first question, which follows "USER: " in all other turns."""
    prompt: list[int] = []
    for turn, message in enumerate(pair.messages):
        if message.role == "user":
            before = opening if turn == 0 else "USER: "
            prompt += _ids(tokenizer, before + message.content + ASSISTANT)
        else:
            prompt += _answer(tokenizer, message.content)
    return TokenizedPair(
        tuple(prompt), tuple(_answer(tokenizer, pair.chosen)), tuple(_answer(tokenizer, pair.rejected))
    )


def stacked_pairs(pairs: Sequence[TokenizedPair]) -> dict[str, Tensor]:
    """`ids` int64 and `said` bool [2P, T], padded on the right: the chosen conversations, then the rejected ones;
    `said` marks the tokens of the answer."""
    return _stacked([(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs])


def stacked_chosen(pairs: Sequence[TokenizedPair]) -> dict[str, Tensor]:
    """The first half of `stacked_pairs`: [P, T]."""
    return _stacked([(pair.prompt, pair.chosen) for pair in pairs])


def _stacked(rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> dict[str, Tensor]:
    length = -(-max(len(prompt) + len(answer) for prompt, answer in rows) // _LENGTH_STEP) * _LENGTH_STEP
    ids, said = torch.zeros(len(rows), length, dtype=torch.int64), torch.zeros(len(rows), length, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(rows):
        ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        said[row, len(prompt) : len(prompt) + len(answer)] = True
    return {"ids": ids, "said": said}


def _answer(tokenizer: Tokenizer, text: str) -> list[int]:
    return _ids(tokenizer, f" {text}{EOS}")


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
