"""Looks at everything once the kills are over, and says what must not be: a sentence each, the first word its kind.

lost       an upload that was taken and is not ready        duplicate  something that is there twice
different  not the tensors of an undisturbed run            orphan     something that nobody needs any more
wrong      an answer that is not the right one              …          anything else
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
from chaos.audit import said_ready, unfinished_jobs
from chaos.campaign import Campaign
from chaos.clients import Answered, Asker, Follower, Notes, order
from chaos.poison import Poisoner
from chaos.report import Poisoned
from chaos.stack import Stack
from chaos.stand_in_vllm import right_answer
from redis import Redis

from encoders.types import SlideEmbedding
from model_store.contracts.slide_rows import ROWS

# What a slide that nobody can encode is said to be, and how often it is started (server.settings). Errors alone end it
# earlier, at the third; but a poisoned slide is also hit by the kills that are meant for others.
_POISON_CODE = "unreadable_slide"
_MOST_STARTS = 5
_UP_AGAIN_WITHIN_S = 300.0
_IDLE_WITHIN_S = 90.0
_LOOK_EVERY_S = 0.2


def calm_findings(stack: Stack, redis: Redis) -> Iterator[str]:
    """Waits until all is up again and no job is left; findings when that does not come."""
    if not _within(_UP_AGAIN_WITHIN_S, lambda: httpx.get(f"{stack.server.url}/readyz", timeout=30).status_code == 200):
        yield f"down: it is not ready again: {httpx.get(f'{stack.server.url}/readyz').text}"
    if not _within(_IDLE_WITHIN_S, lambda: not any(unfinished_jobs(redis))):
        yield from (f"orphan: {job}, and stays so" for job in unfinished_jobs(redis))


def client_findings(campaign: Campaign) -> Iterator[str]:
    """What those who uploaded and followed were told."""
    for slide_id in set(campaign.followers) - set(campaign.outcomes):
        yield f"lost: {slide_id[:12]} has had no last event"
    for slide_id in set(campaign.outcomes) & set(campaign.slides.sound):
        if campaign.outcomes[slide_id].name != "ready":
            yield f"lost: {slide_id[:12]} ended as {campaign.outcomes[slide_id].data}"
    if campaign.executioner.remaining:
        yield f"kills: {campaign.executioner.remaining} found no victim; upload more slides"
    yield from campaign.notes.findings


def listed_findings(stack: Stack, campaign: Campaign) -> Iterator[str]:
    """What the list of slides shows."""
    listed = list(_listed(stack))
    for slide_id, count in Counter(slide["id"] for slide in listed).items():
        if count > 1:
            yield f"duplicate: {slide_id[:12]} is listed {count} times"
    found = {slide["id"]: slide for slide in listed}
    yield from (f"lost: {slide_id[:12]} is not listed" for slide_id in set(campaign.followers) - set(found))
    for slide_id, slide in found.items():
        wanted = ("failed", _POISON_CODE) if slide_id in campaign.slides.poisoned else ("ready", None)
        if (slide["status"], (slide["error"] or {}).get("code")) != wanted:
            yield f"lost: {slide_id[:12]} is listed as {slide['status']}, {slide['error']}"


def event_findings(redis: Redis, follower: Follower) -> Iterator[str]:
    """Whoever followed has seen every event that is remembered, up to where following ended. That may be before the
    event `ready`: a slide is ready, and its followers hear of it, from the moment its embedding is stored."""
    _, ids = said_ready(redis, follower.slide_id)
    upto = [event_id for event_id in ids if follower.seen and order(event_id) <= order(follower.seen[-1])]
    missed = set(upto) - set(follower.seen)
    if missed:
        yield f"events: {len(missed)} of {len(ids)} of {follower.slide_id[:12]} did not reach their follower"


def poisoned(poisoner: Poisoner, campaign: Campaign) -> Poisoned:
    """What became of a poisoned slide."""
    outcome = campaign.outcomes.get(poisoner.slide_id)
    code = str(outcome.data.get("code", outcome.name)) if outcome else "no outcome"
    return Poisoned(poisoner.poison, poisoner.doses, code, campaign.ready_before.get(poisoner.slide_id, 0))


def poison_findings(it: Poisoned) -> Iterator[str]:
    """It stops at its limit, and says so."""
    if it.code != _POISON_CODE:
        yield f"poison: {it.poison} ended as {it.code}"
    if not 1 <= it.doses <= _MOST_STARTS:
        yield f"poison: {it.poison} was tried {it.doses} times"


def answer_findings(answered: list[Answered], right: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Every answer is the right one for its slide and question."""
    for each in answered:
        if each.answer != right[(each.slide_id, each.question)]:
            yield f"wrong: {each.slide_id[:12]}, {each.question!r} was answered {each.answer!r}"


def stand_ins_answers(answered: list[Answered], embeddings: Mapping[str, SlideEmbedding]) -> dict[tuple[str, str], str]:
    """What the stand-in must say, given the slides' undisturbed embeddings."""
    return {
        (each.slide_id, each.question): right_answer(embeddings[each.slide_id].tensors[ROWS], each.question)
        for each in answered
    }


def calm_answers(stack: Stack, answered: list[Answered]) -> dict[tuple[str, str], str]:
    """What a real model says to the same questions now that nobody disturbs it; it is asked greedily."""
    notes = Notes()

    async def ask_all() -> dict[tuple[str, str], str]:
        asker = Asker([], notes, random.Random(0), 0.0)
        async with httpx.AsyncClient(base_url=stack.server.url, timeout=120) as client:
            found = [await asker.ask(client, *pair) for pair in {(each.slide_id, each.question) for each in answered}]
        return {(each.slide_id, each.question): each.answer for each in found if each is not None}

    answers = asyncio.run(ask_all())
    assert not notes.errors, notes.errors
    return answers


def log_findings(log_dir: Path) -> Iterator[str]:
    """Bugs that the API has met, by its own word."""
    for line in (log_dir / "api.log").read_text().splitlines():
        if '"unexpected_error"' in line:
            yield f"bug: {orjson.loads(line)}"


def _listed(stack: Stack) -> Iterator[dict[str, Any]]:
    with stack.server.client() as client:
        cursor: str | None = ""
        while cursor is not None:
            page = client.get("/v1/slides", params={"cursor": cursor, "limit": 50}).json()
            yield from page["data"]
            cursor = page["next_cursor"]


def _within(patience_s: float, holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True
