"""Asks the judge, and keeps every raw reply: what is in the log can be read again without the judge.

For each answer, metric and repeat: the claims in one text, then their scores by the other. Claims of a reference are
asked for once a repeat, whoever's answers are judged. A reply that cannot be read is asked for again, twice at most,
and every attempt stays in the log. A judgement that fails is unjudged, never wrong and never left out.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import httpx

from evaluation.asking.reply_log import ReplyLog
from evaluation.asking.run import in_parallel
from evaluation.asking.targets import ChatEndpoint
from evaluation.judging.prompts import METRICS, Metric, Prompts
from evaluation.judging.read_reply import Claims, Judged, read_claims, read_scores

REPEATS: Final = 3
ATTEMPTS: Final = 3
Log = Mapping[str, Mapping[str, Any]]
StepName = Literal["claims", "scores"]


@dataclass(frozen=True)
class Answered:
    """An answer that can be judged. Equal answers to the same question are judged once."""

    question: str
    truth: str
    answer: str


@dataclass(frozen=True)
class ToJudge:
    """One answer by one metric, for the n-th time."""

    answered: Answered
    metric: Metric
    repeat: int

    @property
    def claimed(self) -> str:
        """The text whose claims are judged."""
        return self.answered.truth if self.metric == "WSI-Precision" else self.answered.answer

    @property
    def other(self) -> str:
        """The text that they are judged by."""
        return self.answered.answer if self.metric == "WSI-Precision" else self.answered.truth


@dataclass(frozen=True)
class Judgement:
    """The score, or why there is none and at which step; `claims` is how many there were."""

    score: float | None
    reason: str | None
    step: StepName
    claims: int = 0


@dataclass(frozen=True)
class Judge:
    """A judge with its prompts: what to ask, what its replies in a log say, and asking for the rest."""

    endpoint: ChatEndpoint
    prompts: Prompts
    repeats: int = REPEATS
    metrics: tuple[Metric, ...] = METRICS

    @property
    def record(self) -> dict[str, Any]:
        """All that decides its judgements."""
        generation = self.endpoint.generation
        return {
            "model": self.endpoint.model,
            "temperature": generation.temperature,
            "max_tokens": generation.max_tokens,
            "prompts": self.prompts.wording,
            "prompt_hash": self.prompts.digest,
            "metrics": list(self.metrics),
            "repeats": self.repeats,
            "attempts_at_an_unread_reply": ATTEMPTS,
        }

    def judgement(self, log: Log, wanted: ToJudge) -> Judgement:
        """What the log says; the reason "not_asked" where it says nothing yet."""
        claims = self._claims(log, wanted)
        if claims is None or claims.reason is not None:
            return Judgement(None, claims.reason if claims else "not_asked", "claims")
        judged = self._scores(log, wanted, claims.claims)
        count = len(claims.claims)
        return (
            Judgement(judged.score, judged.reason, "scores", count)
            if judged
            else Judgement(None, "not_asked", "scores", count)
        )

    async def ask_all(
        self,
        answers: Sequence[Answered],
        log: ReplyLog,
        *,
        at_once: int = 8,
        on_judgement: Callable[[], None] = lambda: None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Asks for all that the log lacks or has no readable reply for.

        Raises:
            TargetError: the judge would refuse everything.
        """
        todo = iter(
            [
                ToJudge(answered, metric, repeat)
                for answered in dict.fromkeys(answers)
                for metric in self.metrics
                for repeat in range(self.repeats)
            ]
        )
        # Claims of a reference serve all answers to its question: whoever comes second waits for the first.
        asking: dict[str, asyncio.Lock] = {}
        count = len(set(answers)) * len(self.metrics) * self.repeats

        async def work(client: httpx.AsyncClient) -> None:
            for wanted in todo:
                key = self._claims_key(wanted)
                async with asking.setdefault(key, asyncio.Lock()):
                    claims = self._claims(log.latest, wanted)
                    if claims is None or claims.reason is not None:
                        messages = self.prompts.claims_of(wanted.metric, wanted.answered.question, wanted.claimed)
                        await self._ask(client, log, key, messages, lambda text: read_claims(text).reason)
                        claims = self._claims(log.latest, wanted)
                if claims is not None and claims.reason is None:
                    await self._ask_scores(client, log, wanted, claims.claims)
                on_judgement()

        await in_parallel(work, min(at_once, count), transport)

    async def _ask_scores(
        self, client: httpx.AsyncClient, log: ReplyLog, wanted: ToJudge, claims: tuple[str, ...]
    ) -> None:
        judged = self._scores(log.latest, wanted, claims)
        if judged is None or judged.reason is not None:
            messages = self.prompts.scores_of(wanted.metric, wanted.answered.question, claims, wanted.other)
            key = self._scores_key(wanted, claims)
            await self._ask(client, log, key, messages, lambda text: read_scores(text, claims).reason)

    async def _ask(
        self,
        client: httpx.AsyncClient,
        log: ReplyLog,
        key: str,
        messages: Sequence[Mapping[str, str]],
        why_unread: Callable[[str | None], str | None],
    ) -> None:
        """Until a reply can be read; `no_claims` can, it is just nothing."""
        for attempt in range(1, ATTEMPTS + 1):
            reply = await self.endpoint.complete(client, messages)
            why = why_unread(reply.text)
            line = {"key": key, "attempt": attempt, "text": reply.text, "reason": reply.reason, "finish": reply.finish}
            tokens = {"prompt_tokens": reply.prompt_tokens, "answer_tokens": reply.answer_tokens}
            log.append({**line, **tokens, "unread": why})
            # Without a reply there were several attempts already, each as late as the judge wished.
            if why in (None, "no_claims", "no_reply"):
                return

    def _claims(self, log: Log, wanted: ToJudge) -> Claims | None:
        line = log.get(self._claims_key(wanted))
        return None if line is None else read_claims(line["text"])

    def _scores(self, log: Log, wanted: ToJudge, claims: tuple[str, ...]) -> Judged | None:
        line = log.get(self._scores_key(wanted, claims))
        return None if line is None else read_scores(line["text"], claims)

    def _claims_key(self, wanted: ToJudge) -> str:
        return self._key("claims", wanted, wanted.claimed)

    def _scores_key(self, wanted: ToJudge, claims: tuple[str, ...]) -> str:
        return self._key("scores", wanted, claims, wanted.other)

    def _key(self, step: StepName, wanted: ToJudge, *texts: object) -> str:
        """The question is in it even where published prompts leave it out: who reads the log wants to know."""
        parts = (self.record["prompt_hash"], self.endpoint.model, self.endpoint.generation.temperature)
        content = json.dumps([*parts, step, wanted.metric, wanted.repeat, wanted.answered.question, *texts])
        return hashlib.sha256(content.encode()).hexdigest()[:24]
