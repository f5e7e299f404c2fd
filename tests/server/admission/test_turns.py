"""Turns by tenant: who floods waits in a line of its own."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from server.admission.turns import TenantTurns
from server.errors import Overloaded


class Line:
    """Tasks that take a turn and hold it until they are told to end; in which order they began."""

    def __init__(self, turns: TenantTurns) -> None:
        self._turns = turns
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.begun: list[str] = []
        self.only_ones: list[str] = []

    async def come(self, *names: str) -> None:
        """The tenant is a name's first letter."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name))
            await settled()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await settled()

    async def _hold(self, name: str) -> None:
        async with self._turns.one(name[0]) as is_only_one:
            self.begun.append(name)
            self.only_ones += [name] * is_only_one
            await self._ends[name].wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_newcomer_begins_before_a_flood_that_came_first() -> None:
    line = Line(TenantTurns(3, 2, 100, "looks"))
    await line.come(*(f"a{number}" for number in range(20)))
    assert line.begun == ["a0", "a1"]

    await line.come("b0", "b1", "c0")
    assert line.begun == ["a0", "a1", "b0"]
    await line.end("a0", "a1", "b0")

    assert line.begun == ["a0", "a1", "b0", "c0", "a2", "b1"]


async def test_tenants_are_taken_one_after_the_other() -> None:
    line = Line(TenantTurns(1, 1, 100, "looks"))
    await line.come("a0", "a1", "a2", "b0", "b1", "c0")

    for number in range(6):
        await line.end(line.begun[number])

    assert line.begun == ["a0", "a1", "b0", "c0", "a2", "b1"]


async def test_a_full_line_refuses_its_own_tenant_only() -> None:
    turns = TenantTurns(1, 1, 2, "thumbnails")
    line = Line(turns)
    await line.come("a0", "a1", "a2", "b0")

    with pytest.raises(Overloaded, match="already has too many thumbnails") as caught:
        await AsyncExitStack().enter_async_context(turns.one("a"))

    assert caught.value.retry_after_s
    await line.end("a0", "a1", "b0", "a2")
    assert sorted(line.begun) == ["a0", "a1", "a2", "b0"]


async def test_who_stops_waiting_leaves_the_line() -> None:
    line = Line(TenantTurns(1, 1, 100, "looks"))
    await line.come("a0", "b0", "c0")

    line.tasks["b0"].cancel()
    await settled()
    await line.end("a0")

    assert line.begun == ["a0", "c0"]


@pytest.mark.parametrize("first", ["the end", "the cancel"])
async def test_a_turn_that_is_given_to_somebody_who_leaves_at_that_moment_is_not_lost(first: str) -> None:
    line = Line(TenantTurns(1, 1, 100, "looks"))
    await line.come("a0", "b0", "c0")

    if first == "the end":
        line.tasks["a0"].cancel()
        await asyncio.sleep(0)
        line.tasks["b0"].cancel()
    else:
        line.tasks["b0"].cancel()
        line.tasks["a0"].cancel()
    await settled()

    assert "c0" in line.begun
    await line.end("c0")
    await line.come("d0")
    assert line.begun[-1] == "d0"


async def test_a_turn_says_whether_its_tenant_wants_anything_else() -> None:
    line = Line(TenantTurns(2, 2, 100, "looks"))
    await line.come("a0", "a1", "b0", "a2", "a3")

    await line.end("a0", "a1", "a2", "a3", "b0")
    await line.come("a4")

    assert line.only_ones == ["a0", "b0", "a3", "a4"]
