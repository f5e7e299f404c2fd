"""An answer that is one of the client's choices: each is scored whole behind the question, and the likeliest is it.

What is compared is how likely an answer is to begin with the tokens of a choice, not how likely it is to end there: a
model that says "Yes, in the centre." says "Yes". Where one choice begins with all tokens of another ("No" and "No
tumour"), the shorter one means the answers that begin so and do not go on as the longer one does. So no answer counts
for two choices, and none wins by being a part of another.
"""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from server.asking.answer_scores import AnswerScores, FirstToken
from server.asking.answer_warnings import AnswerWarning
from server.asking.control_text import ControlText
from server.asking.language_model import ChoiceShare, Finished, LanguageModel, Message, Token, Usage
from server.errors import InvalidRequest

# As many as there are letters. Each costs a prefill of the whole prompt.
MOST_CHOICES: Final = 26
MOST_CHOICE_CHARS: Final = 200
# Without control characters, and without blanks around it: those would be tokens that no answer begins with.
ONE_LINE: Final = re.compile(r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f\u2028\u2029]*[^\s\x00-\x1f\x7f-\x9f])?$")
# Prefills of one question that vLLM has at once.
_AT_ONCE: Final = 8
# Below it, nine of ten answers would have begun otherwise. A matter of judgement.
_LEAST_LIKELY: Final = 0.1
_UNLIKELY = AnswerWarning(
    "choices_unlikely",
    "Left to itself the model would hardly begin its answer with any of the choices, so which of them is likeliest "
    "says little; word them as the model answers this question without choices.",
)


@dataclass(frozen=True)
class ChosenAnswer:
    """An answer that was chosen before it is read; there is nothing to close."""

    shares: tuple[ChoiceShare, ...]
    usage: Usage
    doubts: tuple[AnswerWarning, ...] = ()

    async def pieces(self) -> AsyncGenerator[Token | Finished, None]:
        """The likeliest choice, of equally likely ones the first; then the end."""
        yield Token(max(self.shares, key=lambda it: it.probability).text)
        yield Finished("stop", self.usage, self.shares)

    async def close(self) -> None:
        """Nothing runs any more."""


def checked_choices(texts: Sequence[str], control: ControlText) -> tuple[str, ...]:
    """The choices as they came; none where there are none.

    Raises:
        InvalidRequest: one of them cannot be said by this model as it stands, or stands there twice.
    """
    for number, text in enumerate(texts, start=1):
        if control.removed_from(text) != text:
            raise InvalidRequest(f"Choice {number} holds text that the model takes for a control token; leave it out.")
        if ONE_LINE.fullmatch(text) is None:
            raise InvalidRequest(
                f"Choice {number} is empty, has blanks around it, or more than one line; send one line of plain text."
            )
        if text in texts[: number - 1]:
            raise InvalidRequest(f"Choice {number} is there twice; send each choice once.")
    return tuple(texts)


def most_tokens(choices: Sequence[str]) -> int:
    """More than the longest choice has."""
    return max(len(choice.encode()) for choice in choices) + 1


async def choose(model: LanguageModel, tenant: str, asked: Sequence[Message], choices: Sequence[str]) -> ChosenAnswer:
    """Scores every choice as the answer to these messages.

    Raises:
        InvalidRequest: two of them are the same tokens to this model.
        SlideLost, QuestionTooLong, LanguageModelUnavailable, LanguageModelFailed: as `LanguageModel.score`.
    """
    first = await model.first_token(tenant, list(asked))  # refuses what is too long, and counts the prompt alone
    scores = await _scored(model, tenant, asked, choices)
    _refuse_equal([it.ids for it in scores])
    shared = _shared_tokens(scores)
    masses = _masses([it.ids[shared:] for it in scores], [sum(it.logprobs[shared:]) for it in scores])
    total = math.fsum(masses)
    shares = tuple(ChoiceShare(text, mass / total) for text, mass in zip(choices, masses, strict=True))
    return ChosenAnswer(shares, _usage(first, scores, shares, asked), _doubts(first, scores, shared))


async def _scored(
    model: LanguageModel, tenant: str, asked: Sequence[Message], choices: Sequence[str]
) -> list[AnswerScores]:
    places = asyncio.Semaphore(_AT_ONCE)

    async def score(choice: str) -> AnswerScores:
        async with places:
            return await model.score(tenant, [*asked, Message("assistant", choice)])

    tasks = [asyncio.create_task(score(choice)) for choice in choices]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _refuse_equal(tokens: Sequence[tuple[int, ...]]) -> None:
    for number, ids in enumerate(tokens, start=1):
        if ids in tokens[: number - 1]:
            same = tokens.index(ids) + 1
            raise InvalidRequest(
                f"Choices {same} and {number} are the same to this model, whose vocabulary lacks what they differ in; "
                "word one of them in other letters."
            )


def _shared_tokens(scores: Sequence[AnswerScores]) -> int:
    """How many tokens all of them begin with: the prompt, and what is the same in all choices. Their probabilities
    cancel, and what they differ by in several prefills is the arithmetic's."""
    shortest, longest = min(it.ids for it in scores), max(it.ids for it in scores)
    pairs = enumerate(zip(shortest, longest, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(shortest), len(longest)))


def _masses(tokens: Sequence[tuple[int, ...]], logs: Sequence[float]) -> list[float]:
    """Of each choice, by its tokens and the logarithm of their probability, how likely an answer is to begin with it
    and to go on as no longer choice does; on a common scale."""
    likeliest = max(logs)
    begins = [math.exp(log - likeliest) for log in logs]

    def goes_on_as(one: int) -> list[int]:
        return [at for at, other in enumerate(tokens) if len(other) > len(tokens[one]) and _begins(other, tokens[one])]

    masses = list(begins)
    for one in range(len(tokens)):
        longer = goes_on_as(one)
        # Of "No", "No tumour" and "No tumour cells" the first loses the second, which has the third in it.
        nearest = [at for at in longer if not any(_begins(tokens[at], tokens[it]) for it in longer if it != at)]
        masses[one] = max(0.0, begins[one] - math.fsum(begins[at] for at in nearest))
    return masses


def _begins(tokens: tuple[int, ...], beginning: tuple[int, ...]) -> bool:
    return tokens[: len(beginning)] == beginning


def _usage(
    first: FirstToken, scores: Sequence[AnswerScores], shares: Sequence[ChoiceShare], asked: Sequence[Message]
) -> Usage:
    """Of the question as it stands, and of the answer; that the prompt was read for every choice is not in it."""
    chosen = max(range(len(shares)), key=lambda at: shares[at].probability)
    slide = next((message.slide for message in asked if message.slide is not None), None)
    return Usage(
        prompt_tokens=first.prompt_tokens,
        slide_tokens=slide.slide_tokens if slide else 0,
        cached_tokens=first.cached_tokens,
        completion_tokens=max(0, scores[chosen].prompt_tokens - first.prompt_tokens),
    )


def _doubts(first: FirstToken, scores: Sequence[AnswerScores], shared: int) -> tuple[AnswerWarning, ...]:
    """Whether the model would rather say something else."""
    prompt = min(shared, first.prompt_tokens - 1)
    logs = [sum(it.logprobs[prompt:]) for it in scores]
    outer = [
        log
        for log, it in zip(logs, scores, strict=True)
        if not any(len(other.ids) < len(it.ids) and _begins(it.ids, other.ids) for other in scores)
    ]
    return (_UNLIKELY,) if math.fsum(map(math.exp, outer)) < _LEAST_LIKELY else ()
