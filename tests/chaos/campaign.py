"""Uploads slides, follows them, asks about them and kills, all at once, until every slide has its last event."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from chaos.clients import Asker, Follower, Notes, Said, upload
from chaos.executioner import Executioner
from chaos.plan import Kill
from chaos.poison import Poison, Poisoner
from chaos.slides import Slides
from chaos.stack import Stack
from chaos.strays import Strays

# Slides that are not through yet, and kills that wait for their victim, before the next slide is uploaded: so kills
# are spread over the run however long a victim takes to come back.
_MOST_UNFINISHED, _MOST_PENDING = 4, 1
_LOOK_EVERY_S = 0.05
_STRAYS_EVERY_S = 1.0
# Nothing at all happens for so long: what is not through is lost. vLLM may take minutes to come back.
_STALLED_AFTER_S = 300.0
_NO_LIMITS = httpx.Limits(max_connections=None)
# Some clients are not sure whether their upload arrived.
_UPLOADED_TWICE = 0.25


@dataclass
class Campaign:
    """`play` it once; then the other fields say how it went."""

    stack: Stack
    slides: Slides
    plan: list[Kill]
    poisons: tuple[Poison, ...]
    spare: int
    strays: Strays
    drawn: random.Random
    pause_s: float
    notes: Notes = field(default_factory=Notes)
    followers: dict[str, Follower] = field(default_factory=dict)
    outcomes: dict[str, Said] = field(default_factory=dict)
    ready_before: dict[str, int] = field(default_factory=dict)
    uploaded_twice: int = 0
    took_s: float = 0.0

    def __post_init__(self) -> None:
        self.ready: list[str] = []
        self.asker = Asker(self.ready, self.notes, self.drawn, self.pause_s)
        self.executioner = Executioner(self.stack, list(self.plan), list(self.slides.sound), self.asker.streaming)
        named = zip(self.poisons, self.slides.poisoned, strict=True)
        self.poisoners = [Poisoner(poison, slide_id, self.stack) for poison, slide_id in named]
        self._followed: list[asyncio.Task[None]] = []
        self._last_sign = time.monotonic()

    async def play(self) -> None:
        """Returns when every slide is through and every kill carried out, or when nothing moves any more."""
        began = time.monotonic()
        client = httpx.AsyncClient(base_url=self.stack.server.url, timeout=120, limits=_NO_LIMITS)
        async with client, asyncio.TaskGroup() as group:
            background = (self.asker.ask_on(client), self._look_around(), *(each.watch() for each in self.poisoners))
            tasks = [group.create_task(work) for work in background]
            await self._upload_all(client, group)
            await self._until(self._is_through)
            for task in (*tasks, *self._followed):
                task.cancel()
        self.took_s = time.monotonic() - began

    @property
    def unfinished(self) -> set[str]:
        """Sound slides that were uploaded and are not through."""
        return {slide_id for slide_id in self.followers if slide_id in self.slides.sound} - set(self.outcomes)

    def _is_through(self) -> bool:
        return set(self.followers) == set(self.outcomes) and not self.executioner.remaining

    async def _upload_all(self, client: httpx.AsyncClient, group: asyncio.TaskGroup) -> None:
        """The poisoned first, so that all others are behind them; spare ones while a kill has found no victim."""
        for slide_id, path in self.slides.poisoned.items():
            await self._send(client, group, slide_id, path)
        sound = list(self.slides.sound.items())
        for slide_id, path in sound[: len(sound) - self.spare]:
            await self._until(self._has_room)
            await self._send(client, group, slide_id, path)
        for slide_id, path in sound[len(sound) - self.spare :]:
            await self._until(lambda: not self.unfinished)
            if self.executioner.homeless:
                await self._send(client, group, slide_id, path)

    def _has_room(self) -> bool:
        return len(self.unfinished) < _MOST_UNFINISHED and self.executioner.pending <= _MOST_PENDING

    async def _send(self, client: httpx.AsyncClient, group: asyncio.TaskGroup, slide_id: str, path: Path) -> None:
        for _ in range(1 + (self.drawn.random() < _UPLOADED_TWICE)):
            if (named := await upload(client, path, self.notes)) != slide_id:
                self.notes.findings.append(f"upload: {slide_id[:12]} was called {named[:12]}")
            self.uploaded_twice += slide_id in self.followers
            if slide_id not in self.followers:
                self.followers[slide_id] = Follower(slide_id, self.notes, self._on_progress)
                self._followed.append(group.create_task(self._follow(client, slide_id)))
        self._last_sign = time.monotonic()

    async def _follow(self, client: httpx.AsyncClient, slide_id: str) -> None:
        outcome = await self.followers[slide_id].follow(client)
        self.outcomes[slide_id] = outcome
        self._last_sign = time.monotonic()
        self.executioner.on_end(slide_id)
        if slide_id in self.slides.poisoned:
            self.ready_before[slide_id] = len(self.ready)
        elif outcome.name == "ready":
            self.ready.append(slide_id)

    async def _on_progress(self, slide_id: str, stage: str, done: int, total: int) -> None:
        self._last_sign = time.monotonic()
        if slide_id in self.slides.sound:
            await self.executioner.on_progress(slide_id, stage, done, total)

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Waits; gives up, for good, when nothing has moved for long: what is lost then is counted at the end."""
        while not holds() and time.monotonic() - self._last_sign < _STALLED_AFTER_S:
            self.executioner.check()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look_around(self) -> None:
        while True:
            await asyncio.to_thread(lambda: self.strays.look(self.stack.processes()))
            await asyncio.sleep(_STRAYS_EVERY_S)
