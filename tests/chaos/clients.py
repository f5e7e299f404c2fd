"""Clients that live through the kills: they upload, follow and ask, and note everything that a client should not see.

A clear error is one with a code that says it may pass; then a client comes again, as its users would. Anything else is
a finding: a refused connection (nobody kills the API), a 500, a stream that ends in silence, an event twice.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

# What an operator's dependency, away for a moment, may cost a client.
CLEAR = frozenset({"queue_unavailable", "language_model_unavailable", "language_model_failed", "overloaded"})
QUESTIONS = ("What tissue is this?", "Is there a tumour?", "Describe the slide.", "How large is it?")
COME_AGAIN_S = 0.3
_EVENT_ID = re.compile(r"(\d+)-(\d+)")
_MAX_TOKENS = 24

OnProgress = Callable[[str, str, int, int], Awaitable[None]]


@dataclass
class Notes:
    """What all clients saw: clear errors by what was tried, and what should not have been."""

    errors: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    resumed: int = 0

    def error(self, doing: str, code: str) -> None:
        """An error; a finding unless it is clear."""
        self.errors[f"{doing}: {code}"] += 1
        if code not in CLEAR:
            self.findings.append(f"{doing}: the error {code!r} is none that a client can wait out")


@dataclass(frozen=True)
class Said:
    """One server-sent event."""

    name: str
    data: dict[str, Any]
    id: str | None


@dataclass(frozen=True)
class Answered:
    """A question with the answer that it got."""

    slide_id: str
    question: str
    answer: str


async def said(response: httpx.Response) -> AsyncIterator[Said]:
    """The events of a stream; comments are skipped."""
    block: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            block[name] = value
        elif not line and block:
            yield Said(block["event"], orjson.loads(block["data"]), block.get("id"))
            block = {}


async def upload(client: httpx.AsyncClient, path: Path, notes: Notes) -> str:
    """Upload until it is taken; the slide's id."""
    while True:
        answer = await client.post("/v1/slides", files={"file": (path.name, path.read_bytes())})
        if answer.status_code in (200, 202):
            return str(answer.json()["id"])
        notes.error("upload", code_of(answer))
        await asyncio.sleep(COME_AGAIN_S)


def code_of(answer: httpx.Response) -> str:
    """The code of an error; what has none is called by its status."""
    if answer.headers.get("Content-Type") != "application/problem+json":
        return f"status {answer.status_code}"
    return str(orjson.loads(answer.content)["code"])


@dataclass
class Follower:
    """Follows one slide from its first event to its last, across broken streams."""

    slide_id: str
    notes: Notes
    on_progress: OnProgress
    seen: list[str] = field(default_factory=list)
    outcome: Said | None = None

    async def follow(self, client: httpx.AsyncClient) -> Said:
        """The last event."""
        while self.outcome is None:
            await self._follow_once(client)
            if self.outcome is None:
                self.notes.resumed += 1
                await asyncio.sleep(COME_AGAIN_S)
        return self.outcome

    async def _follow_once(self, client: httpx.AsyncClient) -> None:
        headers = {"Last-Event-ID": self.seen[-1]} if self.seen else {}
        async with client.stream("GET", f"/v1/slides/{self.slide_id}/events", headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                self.notes.error("follow", code_of(response))
                return
            ended_by = ""
            async for event in said(response):
                ended_by = event.name
                await self._take(event)
            if ended_by not in ("ready", "failed", "error"):
                self.notes.findings.append(f"follow: the events end in silence, behind {ended_by!r}")

    async def _take(self, event: Said) -> None:
        if self.outcome is not None:
            self.notes.findings.append(f"follow: {event.name!r} came behind the last event")
        if event.id is not None:
            if self.seen and order(event.id) <= order(self.seen[-1]):
                self.notes.findings.append(f"follow: event {event.id} came again behind {self.seen[-1]}")
            self.seen.append(event.id)
        if event.name == "error":
            self.notes.error("follow", str(event.data["code"]))
        elif event.name in ("ready", "failed"):
            self.outcome = event
        else:
            await self.on_progress(self.slide_id, event.data["stage"], event.data["done"], event.data["total"])


def order(event_id: str) -> tuple[int, int]:
    """What event ids are compared by: milliseconds, and a count within them."""
    match = _EVENT_ID.fullmatch(event_id)
    assert match is not None, event_id
    return int(match[1]), int(match[2])


@dataclass
class Asker:
    """Asks about ready slides, one question after another; `streaming` is set while an answer is half way."""

    ready: list[str]
    notes: Notes
    drawn: random.Random
    pause_s: float
    answered: list[Answered] = field(default_factory=list)
    asked: int = 0
    streaming: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask_on(self, client: httpx.AsyncClient) -> None:
        """Until cancelled."""
        while True:
            if self.ready:
                self.asked += 1
                found = await self.ask(client, self.drawn.choice(self.ready), self.drawn.choice(QUESTIONS))
                if found is not None:
                    self.answered.append(found)
            await asyncio.sleep(self.pause_s)

    async def ask(self, client: httpx.AsyncClient, slide_id: str, question: str) -> Answered | None:
        """The answer; None when there was a clear error instead."""
        body = {"question": question, "max_tokens": _MAX_TOKENS, "temperature": 0}
        try:
            async with client.stream("POST", f"/v1/slides/{slide_id}/questions", json=body) as response:
                if response.status_code == 200:
                    return await self._read(response, slide_id, question)
                await response.aread()
                self.notes.error("ask", code_of(response))
                return None
        finally:
            self.streaming.clear()

    async def _read(self, response: httpx.Response, slide_id: str, question: str) -> Answered | None:
        tokens = ""
        async for event in said(response):
            if event.name == "token":
                tokens += event.data["text"]
                self.streaming.set()
            elif event.name == "notice":
                continue
            elif event.name == "error":
                self.notes.error("ask", str(event.data["code"]))
                return None
            else:
                if event.data["answer"] != tokens:
                    self.notes.findings.append("ask: the whole answer is not what was streamed")
                return Answered(slide_id, question, tokens)
        self.notes.findings.append("ask: an answer ended in silence")
        return None
