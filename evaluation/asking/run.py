"""Asks what has not been asked yet, several questions at a time, and writes every reply to the log before it counts.

Scoring is elsewhere: the log has the raw replies, and can be scored again without asking anybody.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import httpx

from evaluation.asking.reply_log import ReplyLog


class Keyed(Protocol):
    """Something that is asked once; `key` names it in the log."""

    @property
    def key(self) -> str: ...  # noqa: D102


Asked = TypeVar("Asked", bound=Keyed)


@dataclass(frozen=True)
class Budget:
    """What a run may spend in all, what earlier runs of the same log spent included; None is no limit.

    Prices are USD for a million tokens of prompts and of answers.
    """

    questions: int | None = None
    usd: float | None = None
    usd_per_million_prompt: float = 0.0
    usd_per_million_answer: float = 0.0

    def cost_usd(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Of one reply."""
        return (prompt_tokens * self.usd_per_million_prompt + answer_tokens * self.usd_per_million_answer) / 1e6


@dataclass
class Spent:
    """What a log's replies have cost so far."""

    questions: int = 0
    usd: float = 0.0

    def add(self, budget: Budget, line: dict[str, Any]) -> None:
        """Counts one line of the log."""
        self.questions += 1
        self.usd += budget.cost_usd(line.get("prompt_tokens", 0), line.get("answer_tokens", 0))

    def reaches(self, budget: Budget) -> bool:
        """Whether nothing more may be asked."""
        return (budget.questions is not None and self.questions >= budget.questions) or (
            budget.usd is not None and self.usd >= budget.usd
        )


@dataclass(frozen=True)
class Outcome:
    """Questions of the plan: answered before, answered now, failed now by reason, and not asked for want of budget."""

    before: int
    answered: int
    failed: Counter[str] = field(default_factory=Counter)
    not_asked: int = 0


async def ask_all(
    put: Callable[[httpx.AsyncClient, Asked], Awaitable[dict[str, Any]]],
    asks: Sequence[Asked],
    log: ReplyLog,
    *,
    budget: Budget | None = None,
    at_once: int = 8,
    on_reply: Callable[[], None] = lambda: None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Outcome:
    """Puts all that has no text in the log yet. `put` gives the line for the log: `key`, `text` or the `reason` why
    there is none, tokens. `on_reply` is called for every question, asked or not.

    Raises:
        TargetError: it would refuse every question.
    """
    limits, spent = budget or Budget(), Spent()
    for line in log.latest.values():
        spent.add(limits, line)
    todo = [ask for ask in asks if log.latest.get(ask.key, {}).get("text") is None]
    for _ in range(len(asks) - len(todo)):
        on_reply()
    failed: Counter[str] = Counter()
    answered = not_asked = 0
    queue, writing = iter(todo), asyncio.Lock()

    async def work(client: httpx.AsyncClient) -> None:
        nonlocal answered, not_asked
        for ask in queue:
            if spent.reaches(limits):
                not_asked += 1
                on_reply()
                continue
            # Counted before it is asked, or as many as are asked at once would come on top of the budget.
            spent.questions += 1
            line = await put(client, ask)
            spent.questions -= 1
            spent.add(limits, line)
            async with writing:
                await asyncio.to_thread(log.append, line)
            if line["text"] is None:
                failed[line["reason"]] += 1
            else:
                answered += 1
            on_reply()

    await in_parallel(work, min(at_once, len(todo)), transport)
    return Outcome(len(asks) - len(todo), answered, failed, not_asked)


async def in_parallel(
    work: Callable[[httpx.AsyncClient], Awaitable[None]], workers: int, transport: httpx.AsyncBaseTransport | None
) -> None:
    """Runs as many workers with one client; the first error ends them all and is raised as it is."""
    # What a reply may take is the business of each call.
    timeout, limits = httpx.Timeout(None), httpx.Limits(max_connections=workers or 1)
    async with httpx.AsyncClient(transport=transport, timeout=timeout, limits=limits) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(_awaited(work(client)))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None


async def _awaited(work: Awaitable[None]) -> None:
    await work
