"""What every loop of upkeep has: a failure costs a round, and a cancellation ends it, swallowed or not."""

import asyncio
import contextlib

import pytest
from redis.exceptions import ConnectionError as RedisAway

from server.errors import StorageUnavailable
from server.upkeep.rounds import go_round


@pytest.mark.parametrize("error", [RedisAway(), StorageUnavailable("away"), ValueError("a fault of ours")])
async def test_a_failure_costs_one_round(error: Exception) -> None:
    rounds, done = list[int](), asyncio.Event()

    async def step() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise error
        done.set()

    going = asyncio.create_task(go_round(step, 0.001, "test_failed"))
    async with asyncio.timeout(60):
        await done.wait()
        going.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await going

    assert len(rounds) >= 2


async def test_it_ends_though_the_cancellation_is_swallowed() -> None:
    begun, rounds = asyncio.Event(), list[int]()

    async def swallows() -> None:
        rounds.append(1)
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    going = asyncio.create_task(go_round(swallows, 3_600, "test_failed"))
    async with asyncio.timeout(60):
        await begun.wait()
        going.cancel()
        await going

    assert rounds == [1]


async def test_there_is_no_rest_while_it_is_busy() -> None:
    rounds = list[int]()

    async def step() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            going.cancel()
        await asyncio.sleep(0)

    going = asyncio.create_task(go_round(step, 3_600, "test_failed", lambda: True))
    async with asyncio.timeout(60):
        with contextlib.suppress(asyncio.CancelledError):
            await going

    assert len(rounds) == 3
