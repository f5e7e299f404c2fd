"""Carries out a plan of kills: waits for the moment of each, finds the process, sends SIGKILL, notes what was hit."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from chaos.plan import Kill, Victim
from chaos.stack import Reader, Stack, is_alive

_LOOK_EVERY_S = 0.05
_AMBUSH_LOOK_S = 0.002
_HDF5 = b"\x89HDF"
# A slide fails at its third error and at its fifth start; what we take from it must leave it a chance.
_MOST_READERS_OF_ONE, _MOST_WORKERS_OF_ONE = 1, 2


@dataclass(frozen=True)
class Blow:
    """A kill that was carried out."""

    at_s: float
    victim: Victim
    pid: int
    slides_in_hand: tuple[str, ...]
    moved: bool


@dataclass
class Executioner:
    """`on_progress` is told what slides report; `order` is the slides' ids as they are numbered in the plan."""

    stack: Stack
    plan: list[Kill]
    order: list[str]
    answer_streams: asyncio.Event
    blows: list[Blow] = field(default_factory=list)
    ambushes: int = 0
    through: set[str] = field(default_factory=set)
    _started: float = field(default_factory=time.monotonic)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _homeless: list[Victim] = field(default_factory=list)
    _taken: Counter[tuple[Victim, str]] = field(default_factory=Counter)
    _turns: defaultdict[Victim, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @property
    def pending(self) -> int:
        """Kills whose moment has come and that are not carried out yet."""
        return len(self._under_way) + len(self._homeless)

    @property
    def homeless(self) -> int:
        """Of these, kills that wait for a slide to be encoded."""
        return len(self._homeless)

    @property
    def remaining(self) -> int:
        """Kills to come."""
        return len(self.plan) + self.pending

    async def on_progress(self, slide_id: str, stage: str, done: int, total: int) -> None:
        """A slide has got so far."""
        for kill in [kill for kill in self._planned_for(slide_id) if kill.is_due(stage, done, total)]:
            self.plan.remove(kill)
            self._begin(kill, slide_id)
        if stage == "encode_tiles" and 0 < done < total and self._homeless:
            self._strike_at_slide(self._homeless.pop(0), slide_id, moved=True)

    @property
    def moved(self) -> int:
        """Kills that have hit another slide than was planned."""
        return sum(blow.moved for blow in self.blows)

    def on_end(self, slide_id: str) -> None:
        """A slide is through; a kill whose moment nobody saw, because Redis was away, is not forgotten."""
        self.through.add(slide_id)
        for kill in self._planned_for(slide_id):
            self.plan.remove(kill)
            self._begin(kill, slide_id)

    def check(self) -> None:
        """Raises what went wrong in here."""
        for task in [task for task in self._under_way if task.done()]:
            self._under_way.discard(task)
            task.result()

    def _planned_for(self, slide_id: str) -> list[Kill]:
        return [kill for kill in self.plan if self.order[kill.slide] == slide_id]

    def _begin(self, kill: Kill, slide_id: str) -> None:
        reader = self.stack.reader_of(slide_id) if kill.is_ambush else None
        if reader is not None:
            self._under_way.add(asyncio.create_task(self._ambush(slide_id, reader.worker)))
        elif kill.victim in ("worker", "reader"):
            self._strike_at_slide(kill.victim, slide_id, moved=False)
        else:
            self._under_way.add(asyncio.create_task(self._strike_when_up(kill.victim)))

    async def _ambush(self, slide_id: str, worker: psutil.Process) -> None:
        """The slide's worker, when it has written its features and not yet published them."""
        appeared = await asyncio.to_thread(_features_appear, self.stack.staging_dir, lambda: slide_id in self.through)
        if appeared and self._kill("worker", worker, (slide_id,)):
            self._taken["worker", slide_id] += 1
            self.ambushes += 1
        else:
            self._homeless.append("worker")

    def _strike_at_slide(self, victim: Victim, slide_id: str, *, moved: bool) -> None:
        """Now, or at another slide: this one may be through, or have had its share."""
        reader = self.stack.reader_of(slide_id)
        in_hand = () if reader is None else self._in_hand(victim, reader)
        if reader is None or not self._leaves_a_chance(victim, in_hand):
            self._homeless.append(victim)
            return
        if self._kill(victim, reader.worker if victim == "worker" else reader.process, in_hand, moved):
            self._taken.update((victim, each) for each in in_hand)
        else:
            self._homeless.append(victim)

    def _leaves_a_chance(self, victim: Victim, in_hand: tuple[str, ...]) -> bool:
        most = _MOST_WORKERS_OF_ONE if victim == "worker" else _MOST_READERS_OF_ONE
        return all(self._taken[(victim, slide_id)] < most for slide_id in in_hand)

    def _in_hand(self, victim: Victim, reader: Reader) -> tuple[str, ...]:
        readers = self.stack.readers() if victim == "worker" else [reader]
        return tuple(each.slide_id for each in readers if each.worker == reader.worker and each.slide_id in self.order)

    async def _strike_when_up(self, victim: Victim) -> None:
        """Redis and vLLM are hit when they are up again after the last time, vLLM in the middle of an answer."""
        is_up: Callable[[], bool] = self.stack.redis_answers if victim == "redis" else self.stack.vllm_answers
        async with self._turns[victim]:
            while not await asyncio.to_thread(is_up):  # noqa: ASYNC110 - another process is, and tells nobody
                await asyncio.sleep(_LOOK_EVERY_S)
            if victim == "vllm":
                await self.answer_streams.wait()
            process = self._vllm_process() if victim == "vllm" else self.stack.only(victim)
            assert self._kill(victim, process), "nobody else kills these, and it answered a moment ago"
            while is_alive(process):  # noqa: ASYNC110 - nor does this one
                await asyncio.sleep(_LOOK_EVERY_S)

    def _vllm_process(self) -> psutil.Process:
        """In turn the server and, where there is one, its engine, with which the server ends too."""
        before = sum(blow.victim == "vllm" for blow in self.blows)
        return self.stack.vllm_engine() if before % 2 else self.stack.only("vllm")

    def _kill(
        self, victim: Victim, process: psutil.Process, in_hand: tuple[str, ...] = (), moved: bool = False
    ) -> bool:
        """Whether it was there to be killed: another kill may have been quicker."""
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return False
        self.blows.append(Blow(time.monotonic() - self._started, victim, process.pid, in_hand, moved))
        return True


def _features_appear(staging: Path, too_late: Callable[[], bool]) -> bool:
    """Waits until a features file is being written in the staging folder; False when it is too late for that."""
    before = set(_features_in(staging))
    while not set(_features_in(staging)) - before:
        if too_late():
            return False
        time.sleep(_AMBUSH_LOOK_S)
    return True


def _features_in(staging: Path) -> Iterator[Path]:
    for path in staging.rglob("*"):
        with suppress(OSError), path.open("rb") as file:  # or it is gone again, or a folder
            if file.read(len(_HDF5)) == _HDF5:
                yield path
