"""One answer is scored behind several rows of its slide: prefill by prefill, a bounded number at once."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from server.asking.answer_scores import AnswerScores, FirstToken
from server.asking.evidence import AreaDrops, Choice, shares
from server.asking.language_model import Message
from server.asking.served_models import ServedModel
from server.embeddings.slide_inputs import SlideInput
from server.errors import LanguageModelFailed
from server.slides.slide_record import SlideRecord


@dataclass
class Costs:
    """What vLLM was asked, and the time since the start."""

    requests: int = 0
    prefill_tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    def count(self, tokens: int) -> None:
        """A request with a prompt of so many tokens."""
        self.requests += 1
        self.prefill_tokens += tokens

    def elapsed_ms(self) -> float:
        """Since the start."""
        return round((time.perf_counter() - self.started) * 1000, 1)


@dataclass(frozen=True)
class Baseline:
    """Of the answer as it was given: its tokens, its log-likelihood, and the shares of its choices."""

    tokens: int
    log_likelihood: float
    shares: Mapping[str, float]


@dataclass(frozen=True)
class AnswerScoring:
    """`asked` is the prompt that was answered; its first message has the slide."""

    model: ServedModel
    slide: SlideRecord
    asked: Sequence[Message]
    answer: Message
    choices: Sequence[str]
    places: asyncio.Semaphore
    costs: Costs

    async def baseline(self) -> Baseline:
        """Of the answer as it was given.

        Raises:
            SlideLost, QuestionTooLong, LanguageModelUnavailable, LanguageModelFailed: vLLM does not say.
        """
        slide = self.asked[0].slide
        assert slide is not None, "a question is about a slide"
        first, whole = await self._first_token(slide), await self._scores(slide)
        tokens = whole.prompt_tokens - first.prompt_tokens
        if tokens < 1:
            raise LanguageModelFailed("The language model's scores do not fit the answer; ask again.")
        return Baseline(tokens, whole.of_last(tokens), shares(self.choices, first))

    async def drops(self, rows: Mapping[str, NDArray[Any]], baseline: Baseline) -> dict[str, AreaDrops]:
        """By cell, of rows by the names of what is left out; raises as `baseline`, the first that one has."""
        names = [name.removeprefix("without_") for name in rows if name.startswith("without_")]
        tasks = [
            asyncio.create_task(self._drop(rows[f"without_{name}"], rows[f"control_{name}"], baseline))
            for name in names
        ]
        try:
            return dict(zip(names, await asyncio.gather(*tasks), strict=True))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _drop(self, without: NDArray[Any], control: NDArray[Any], baseline: Baseline) -> AreaDrops:
        left_out, anywhere = (self.model.slide_inputs.make_rows(self.slide, rows) for rows in (without, control))
        scored = await asyncio.gather(self._scores(left_out), self._scores(anywhere))
        drop, of_control = (baseline.log_likelihood - it.of_last(baseline.tokens) for it in scored)
        if not self.choices:
            return AreaDrops(drop, of_control)
        first = shares(self.choices, await self._first_token(left_out))
        return AreaDrops(drop, of_control, tuple(Choice(it, baseline.shares[it], first[it]) for it in self.choices))

    async def _scores(self, slide: SlideInput) -> AnswerScores:
        async with self.places:
            scores = await self.model.language_model.score(self.slide.tenant, [*self._about(slide), self.answer])
        self.costs.count(scores.prompt_tokens)
        return scores

    async def _first_token(self, slide: SlideInput) -> FirstToken:
        async with self.places:
            first = await self.model.language_model.first_token(self.slide.tenant, self._about(slide))
        self.costs.count(first.prompt_tokens)
        return first

    def _about(self, slide: SlideInput) -> list[Message]:
        return [replace(self.asked[0], slide=slide), *self.asked[1:]]
