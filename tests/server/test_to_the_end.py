"""What must not be broken off is not, however often its caller is cancelled."""

import asyncio

import anyio
import pytest

from server.to_the_end import stop, stop_beating, to_the_end


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


async def test_a_beat_ends_though_its_first_cancellation_is_lost() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        is_lost = False
        while True:
            beats += 1
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                if is_lost:
                    raise
                is_lost = True  # as in `asyncio.wait_for` of Python 3.11, where what it waits for is just done

    beating = asyncio.ensure_future(beat())
    await asyncio.sleep(0.03)

    await asyncio.wait_for(stop_beating(beating), 5)

    assert beating.cancelled()
    assert beats > 1


async def test_a_caller_that_is_cancelled_meanwhile_learns_of_it_when_the_beat_has_ended() -> None:
    async def beat() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await several_turns()

    beating = asyncio.ensure_future(beat())
    await asyncio.sleep(0)
    caller = asyncio.ensure_future(stop_beating(beating))
    await asyncio.sleep(0)
    caller.cancel()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert beating.done()


async def test_a_beat_that_failed_is_nobodys_business() -> None:
    async def beat() -> None:
        raise ValueError("lost the lock")

    beating = asyncio.ensure_future(beat())
    await asyncio.sleep(0)

    await stop_beating(beating)

    assert isinstance(beating.exception(), ValueError)
