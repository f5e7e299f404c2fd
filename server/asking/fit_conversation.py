"""Fits a conversation to the model: slide and question always, then as many of the newest turns as fit into the context
and as the conversations of its training had. Of longer ones it has learnt nothing, and its answers decay.

The published model cuts its prompt at the end, so that a long conversation loses the very question; this server never
cuts a text (docs/decisions/0010). The API has no tokenizer: a careful estimate keeps room for the answer, and vLLM,
which counts exactly, has the last word.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from model_store.manifest import LlmSpec
from server.asking.conversations import Conversation
from server.asking.language_model import OpenedAnswer
from server.errors import QuestionTooLong

# English in Vicuna's vocabulary has about four bytes per token; fewer here, so that turns are dropped early rather than
# an answer cut short. Denser scripts are left to vLLM's refusal.
BYTES_PER_TOKEN = 3
# The system sentence and the roles of one turn, in tokens of the same estimate.
SYSTEM_TOKENS = 48
TURN_TOKENS = 12


@dataclass(frozen=True)
class FittingAnswer:
    """An opened answer, and how many of the oldest turns it was given without."""

    answer: OpenedAnswer
    turns_left_out: int


def turns_beyond_training(turns: int, trained: int | None) -> int:
    """How many of the oldest of `turns` earlier turns to leave out, so that with the question the conversation is no
    longer than `trained`; 0 where nobody has said how long it may be."""
    return 0 if trained is None else max(0, turns + 1 - trained)


def turns_beyond_budget(
    conversation: Conversation, question: str, slide_tokens: int, max_tokens: int, spec: LlmSpec
) -> int:
    """How many of the oldest turns to leave out, so that there is room for an answer.

    That is `max_tokens`, but at most half of the context: what is allowed is seldom used.
    """
    room = spec.max_model_len - min(max_tokens, spec.max_model_len // 2)
    room -= slide_tokens + SYSTEM_TOKENS + _estimated_tokens(question)
    for kept, turn in enumerate(reversed(conversation.turns)):
        room -= _estimated_tokens(turn.question, turn.answer)
        if room < 0:
            return len(conversation.turns) - kept
    return 0


async def open_dropping_old_turns(
    open_without: Callable[[int], Awaitable[OpenedAnswer]], turns: int, left_out: int
) -> FittingAnswer:
    """Opens an answer without the `left_out` oldest of `turns`, or without as few more as vLLM accepts.

    The number is found by halving; an answer that is opened on the way and turns out to drop too many is closed.

    Raises:
        QuestionTooLong: not even the question alone fits.
    """
    try:
        return FittingAnswer(await open_without(left_out), left_out)
    except QuestionTooLong:
        if left_out == turns:
            raise
    refused, fitting = left_out, FittingAnswer(await open_without(turns), turns)
    while fitting.turns_left_out - refused > 1:
        middle = (refused + fitting.turns_left_out) // 2
        try:
            answer = await open_without(middle)
        except QuestionTooLong:
            refused = middle
            continue
        except BaseException:
            await fitting.answer.close()
            raise
        await fitting.answer.close()
        fitting = FittingAnswer(answer, middle)
    return fitting


def _estimated_tokens(*texts: str) -> int:
    return TURN_TOKENS + sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN
