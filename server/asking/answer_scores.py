"""How likely an answer is to vLLM: what asks for that, and the replies, checked before they are believed.

An answer that stands at the end of a prompt is scored in one prefill, without a token being made. vLLM gives the
log-probability of every token of the prompt; those of the answer are the last ones.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from server.errors import LanguageModelFailed, SlideLost

# The prompt ends where the answer does. One token is the fewest that vLLM makes.
SCORE_ANSWER: Final[Mapping[str, Any]] = {
    "max_tokens": 1,
    "temperature": 0.0,
    "prompt_logprobs": 0,
    "add_generation_prompt": False,
    "continue_final_message": True,
    "vllm_xargs": {"score_answer": 1},
}
# As many as vLLM gives unless it is told to give more.
_MOST_TOKENS = 20
FIRST_TOKEN: Final[Mapping[str, Any]] = {
    "max_tokens": 1,
    "temperature": 0.0,
    "logprobs": True,
    "top_logprobs": _MOST_TOKENS,
}
# SentencePiece's word for a space, in tokens that are shown by themselves.
_SPACE = "\u2581"


@dataclass(frozen=True)
class AnswerScores:
    """Natural log-probabilities of the tokens of a prompt, but for its first, in their order, and their ids."""

    logprobs: tuple[float, ...]
    ids: tuple[int, ...]

    @property
    def prompt_tokens(self) -> int:
        """How long the prompt is, with the slide's rows and the answer."""
        return len(self.logprobs) + 1

    def of_last(self, tokens: int) -> float:
        """The log-likelihood of the last so many tokens together."""
        return sum(self.logprobs[len(self.logprobs) - tokens :])


@dataclass(frozen=True)
class FirstToken:
    """Probabilities of the likeliest first tokens of an answer, by what they say; the tokens of its prompt, and how
    many of them were in vLLM's prefix cache."""

    prompt_tokens: int
    cached_tokens: int
    probabilities: Mapping[str, float]


def read_scores(content: bytes, slide_tokens: int) -> AnswerScores:
    """The scores in a reply to `SCORE_ANSWER`, for a prompt with so many rows of a slide.

    Raises:
        SlideLost: vLLM has not used exactly these.
        LanguageModelFailed: the reply is none.
    """
    try:
        reply = orjson.loads(content)
        _require_slide(reply, slide_tokens)
        first, *others = reply["prompt_logprobs"]
        if first is not None or len(others) + 1 != reply["usage"]["prompt_tokens"]:
            raise ValueError("not the tokens of the prompt")
        found = [next(iter(token.items())) for token in others]
        return AnswerScores(tuple(float(it["logprob"]) for _, it in found), tuple(int(name) for name, _ in found))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise LanguageModelFailed("The language model's scores cannot be read; try again.") from error


def read_first_token(content: bytes, slide_tokens: int) -> FirstToken:
    """The tokens in a reply to `FIRST_TOKEN`; raises as `read_scores`."""
    try:
        reply = orjson.loads(content)
        _require_slide(reply, slide_tokens)
        [choice] = reply["choices"]
        found: dict[str, float] = {}
        for token in choice["logprobs"]["content"][0]["top_logprobs"]:
            said = str(token["token"]).replace(_SPACE, " ").strip()
            found[said] = found.get(said, 0.0) + _probability(float(token["logprob"]))
        counts = reply["usage"]
        cached = counts["prompt_tokens_details"].get("cached_tokens") or 0
        return FirstToken(int(counts["prompt_tokens"]), int(cached), found)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise LanguageModelFailed("The language model's scores cannot be read; try again.") from error


def _require_slide(reply: Any, slide_tokens: int) -> None:
    details = reply["usage"].get("prompt_tokens_details") or {}
    if (details.get("multimodal_tokens") or {}).get("image", 0) != slide_tokens:
        raise SlideLost("The language model did not see the whole slide; ask again.")


def _probability(logprob: float) -> float:
    return min(1.0, math.exp(logprob))
