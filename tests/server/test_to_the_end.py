"""What must not be broken off is not, however often its caller is cancelled."""

import asyncio

import anyio
import pytest

from server.to_the_end import stop, to_the_end


async def several_turns() -> str:
    for _ in range(5):
        await asyncio.sleep(0)
    return "closed"


async def test_a_scope_that_cancels_at_every_await_does_not_reach_it() -> None:
    ended: list[str] = []
    with anyio.CancelScope() as scope:
        try:
            scope.cancel()
            await asyncio.sleep(0)
        finally:
            ended.append(await to_the_end(several_turns()))

    assert ended == ["closed"]


async def test_it_ends_before_the_cancellation_goes_on() -> None:
    ended: list[str] = []

    async def closing() -> None:
        ended.append(await several_turns())

    caller = asyncio.ensure_future(to_the_end(closing()))
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == ["closed"]


async def test_its_error_is_the_callers() -> None:
    async def failing() -> None:
        raise OSError("closed already")

    with pytest.raises(OSError, match="closed already"):
        await to_the_end(failing())


async def test_a_stopped_task_has_tidied_up_once_it_is_stopped() -> None:
    ended: list[str] = []

    async def working() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(await several_turns())

    task = asyncio.ensure_future(working())
    await asyncio.sleep(0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stop(task)

    assert task.cancelled()
    assert ended == ["closed"]
