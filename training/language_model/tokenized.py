"""Conversations as token ids: what the language model reads, what it is asked to say, and what it should know where.

The text is exactly what the chat template makes of the conversation when it is served (a test compares them).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model_store.chat_template import SYSTEM_SENTENCES
from model_store.contracts.prompt import PromptTemplate
from synthetic.questions.question import Question
from synthetic.questions.topics import TOPICS
from training.language_model.demo_tokenizer import BOS, EOS, PLACEHOLDER

ASSISTANT: Final = " ASSISTANT:"
# Every phrase that an option or an answer can name, as a class of the scaffold's heads.
PHRASES: Final = tuple(sorted({phrase for topic in TOPICS for phrase in topic.phrases.values()}))
IGNORED: Final = -100
# A closed answer is one token among many; without a weight it is hardly heard.
_CLOSED_WEIGHT: Final = 4.0
_END_WEIGHT: Final = 0.5
# Kernels are prepared for each shape they meet and kept: few shapes mean less time and gigabytes less memory.
_LENGTH_STEP: Final = 32


@dataclass
class TokenizedConversation:
    """Token ids, and a weight for each as a target (0: not asked for).

    `options` are rows (position, letter index, phrase index) at the last token of every option that a question names;
    a phrase that is named for Yes or No has the letter index 4. `answers` are rows (position, phrase index of the
    truth, phrase index that a Yes/No question names or `IGNORED`) at the last token before a closed answer.
    """

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    options: list[tuple[int, int, int]] = field(default_factory=list)
    answers: list[tuple[int, int, int]] = field(default_factory=list)


def tokenize_conversation(
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    *,
    opening: str,
    prompt_weight: float,
    first_weight: float = 1.0,
) -> TokenizedConversation:
    """`opening` is everything before the first question, which follows "USER: " in all other turns. `first_weight`: of
    a free answer's first token, which decides between an answer and a refusal."""
    result = TokenizedConversation()
    for turn, question in enumerate(questions):
        _add_prompt(result, tokenizer, question, opening if turn == 0 else "USER: ", prompt_weight)
        _add_answer(result, tokenizer, question, first_weight)
    return result


def slide_opening(template: PromptTemplate, slide_tokens: int) -> str:
    """What stands before the first question about a slide: a placeholder for each of its tokens, as vLLM expands it."""
    return f"{BOS}{SYSTEM_SENTENCES[template]} USER: {PLACEHOLDER * slide_tokens}\n"


def text_opening(template: PromptTemplate, context: str, *, with_system: bool) -> str:
    """The same with a slide in words in place of the slide."""
    system = f"{SYSTEM_SENTENCES[template]} " if with_system else ""
    return f"{BOS}{system}USER: {context}\n"


def stacked(conversations: Sequence[TokenizedConversation]) -> dict[str, Tensor]:
    """A batch padded on the right: `ids` int64 and `weights` float32 [B, T]; `options`, `answers` int64 [n, 4],

    rows of the conversation's number and its own rows.
    """
    length = -(-max(len(one.ids) for one in conversations) // _LENGTH_STEP) * _LENGTH_STEP
    ids = torch.zeros(len(conversations), length, dtype=torch.int64)
    weights = torch.zeros(len(conversations), length)
    for row, one in enumerate(conversations):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        weights[row, : len(one.ids)] = torch.tensor(one.weights)
    options = [(row, *values) for row, one in enumerate(conversations) for values in one.options]
    answers = [(row, *values) for row, one in enumerate(conversations) for values in one.answers]
    return {"ids": ids, "weights": weights, "options": _rows(options), "answers": _rows(answers)}


def _rows(rows: Sequence[tuple[int, ...]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)


def _add_prompt(
    result: TokenizedConversation, tokenizer: Tokenizer, question: Question, before: str, weight: float
) -> None:
    text = before + question.text + ASSISTANT
    encoding = tokenizer.encode(text, add_special_tokens=False)
    start = len(result.ids)
    result.ids += encoding.ids
    placeholder = tokenizer.token_to_id(PLACEHOLDER)
    result.weights += [0.0 if token == placeholder else weight for token in encoding.ids]
    if not question.options:
        return
    named = question.options[0] if question.form == "yes_no" else None
    known = (PHRASES.index(question.phrase), IGNORED if named is None else PHRASES.index(named))
    result.answers.append((len(result.ids) - 1, *known))
    for number, (phrase, end) in enumerate(_ends(text, question.options, len(before))):
        token = max(index for index, (first, _) in enumerate(encoding.offsets) if first < end)
        result.options.append((start + token, number if named is None else 4, PHRASES.index(phrase)))


def _ends(text: str, phrases: Sequence[str], start: int) -> list[tuple[str, int]]:
    """Each phrase with the place behind it, found from the end: options stand last, in order."""
    ends, place = [], len(text) - len(ASSISTANT)
    for phrase in reversed(phrases):
        place = text.rindex(phrase, start, place)
        ends.append((phrase, place + len(phrase)))
    return ends[::-1]


def _add_answer(result: TokenizedConversation, tokenizer: Tokenizer, question: Question, first_weight: float) -> None:
    ids = tokenizer.encode(f" {question.answer}{EOS}", add_special_tokens=False).ids
    result.ids += ids
    if question.kind == "closed":
        result.weights += [_CLOSED_WEIGHT] * (len(ids) - 1) + [_END_WEIGHT]
    else:
        result.weights += [first_weight] + [1.0] * (len(ids) - 1)
